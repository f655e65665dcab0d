"""A real Slurm of one node on this machine, from Debian's packages, for the tests of the executor.

    eval "$(python -m tests.cluster.one_node start DIR)"     then sbatch, squeue and scancel work in this shell
    python -m tests.cluster.one_node stop DIR

Everything lies in DIR: configuration, state, logs, and a munge key and socket of its own, so that nothing of the
machine is changed. Needs root, as Slurm's daemons do.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
_FOLDERS = "/usr/sbin:/usr/local/sbin"
WAIT_SECONDS = 60

CONFIGURATION = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
MaxArraySize={max_array_size}
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillWait=5
SlurmdParameters=config_overrides
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=ALL MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no cluster can be started here; None if one can."""
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    missing = [name for name in PROGRAMS if _found(name) is None]
    return f"{', '.join(missing)} not installed: apt-get install slurm-wlm munge" if missing else None


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_FOLDERS}")


def start(folder: Path, *, max_array_size: int = 1001, cpus: int | None = None) -> dict[str, str]:
    """Start a cluster; the environment variables by which its commands find it.

    Raises:
        RuntimeError: a daemon does not come up; the message has the end of its log.
    """
    if (reason := why_not()) is not None:
        raise RuntimeError(reason)
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.absolute()
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "munge").chmod(0o700)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    controller_port, node_port = _free_ports(2)
    configuration.write_text(
        CONFIGURATION.format(
            host=socket.gethostname().split(".")[0], folder=folder, controller_port=controller_port,
            node_port=node_port, max_array_size=max_array_size, cpus=cpus or max(2, os.cpu_count() or 2),
        )
    )  # fmt: skip
    munge = folder / "munge"
    _run(
        folder, "munged", "--force", f"--key-file={key}", f"--socket={munge}/socket", f"--pid-file={folder}/munged.pid",
        f"--log-file={folder}/munged.log", f"--seed-file={munge}/seed",
    )  # fmt: skip
    _run(folder, "slurmctld", "-f", str(configuration))
    _run(folder, "slurmd", "-f", str(configuration))
    found = {"SLURM_CONF": str(configuration)}
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        told = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], env=os.environ | found, capture_output=True, text=True, check=False
        )
        if {*told.stdout.split()} == {"idle"}:
            return found
        time.sleep(0.2)
    stop(folder)
    logs = [(folder / name).read_text(errors="replace")[-800:] for name in ("slurmctld.log", "slurmd.log")]
    raise RuntimeError("Slurm did not come up:\n" + "\n".join(logs))


def stop(folder: Path) -> None:
    """End its daemons, and what they still run."""
    for name in ("slurmd", "slurmctld", "munged"):
        with suppress(OSError, ValueError):
            process = int((folder / f"{name}.pid").read_text())
            os.kill(process, signal.SIGTERM)
            for _ in range(100):
                os.kill(process, 0)
                time.sleep(0.1)
            os.kill(process, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _run(folder: Path, program: str, *arguments: str) -> None:
    path = _found(program)
    assert path is not None
    with (folder / f"{program}.start.log").open("wb") as log:
        done = subprocess.run([path, *arguments], stdout=log, stderr=log, check=False)
    if done.returncode:
        said = (folder / f"{program}.start.log").read_text(errors="replace")[-800:]
        raise RuntimeError(f"{program} did not start: {said}")


if __name__ == "__main__":
    verb, place = sys.argv[1:]
    if verb == "stop":
        stop(Path(place))
    else:
        for name, value in start(Path(place)).items():
            print(f"export {name}={value}")
