// The page itself: its scheme, views of charts, tables that sort and filter, and the stages of one language.
const page = (() => {
  "use strict";

  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);

  // An element with attributes and children; text is set as text, never read as markup.
  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // Numbers as lola_data.balance.text and report_text write them.
  const number = (value) => Math.round(value).toLocaleString("en-US");
  function scaled(value, names, gap) {
    let unit = 0;
    while (value >= 999.5 && unit < names.length - 1) {
      value /= 1000;
      unit += 1;
    }
    return unit ? value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0) + gap + names[unit] : `${value.toFixed(0)}${gap}${names[0]}`;
  }
  const bytes = (value) => scaled(value, ["B", "kB", "MB", "GB", "TB", "PB"], " ");
  const short = (value) => scaled(value, ["", "k", "M", "G", "T", "P"], "");
  function share(value) {
    const percent = 100 * value;
    if (percent === 0 || percent >= 9.95) return `${percent.toFixed(1)}%`;
    return percent >= 0.01 ? `${percent.toFixed(2)}%` : "<0.01%";
  }
  const counted = (value, unit) => (unit === "bytes" ? bytes(value) : short(value));

  function named(name, code) {
    const made = el("bdi", {}, name);
    return code && code !== name ? [made, " ", el("span", { class: "code" }, code)] : [made];
  }

  // Light, dark, or as the system has it. The choice is kept where the browser lets a local page keep something.
  function schemes() {
    const buttons = [...document.querySelectorAll("[data-scheme]")];
    function choose(scheme) {
      document.documentElement.dataset.theme = scheme;
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.scheme === scheme));
      document.dispatchEvent(new Event("scheme"));
    }
    for (const button of buttons) {
      button.addEventListener("click", () => {
        choose(button.dataset.scheme);
        try { localStorage.setItem("lola-data-scheme", button.dataset.scheme); } catch { /* not allowed to keep it */ }
      });
    }
    let kept = null;
    try { kept = localStorage.getItem("lola-data-scheme"); } catch { /* nor to look */ }
    choose(buttons.some((button) => button.dataset.scheme === kept) ? kept : "auto");
    $("scheme").hidden = false;
  }

  function views() {
    for (const group of document.querySelectorAll(".views")) {
      group.hidden = false;
      for (const button of group.querySelectorAll("button")) {
        button.addEventListener("click", () => {
          for (const other of group.querySelectorAll("button")) {
            other.setAttribute("aria-pressed", String(other === button));
            $(other.getAttribute("aria-controls")).hidden = other !== button;
          }
        });
      }
    }
  }

  // A table whose heads are buttons: by number where cells have one (none comes last), else by text.
  function sortable(table) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const numeric = head.classList.contains("n");
        const next = now === "descending" || (now === null && !numeric) ? "ascending" : "descending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        const keyed = [...body.rows].map((row) => {
          const cell = row.cells[column];
          const value = cell.dataset.v;
          return [row, value === undefined ? cell.textContent.trim() : value === "" ? null : Number(value)];
        });
        const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en"));
        keyed.sort(([, a], [, b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
        body.append(...keyed.map(([row]) => row));
      });
    });
  }

  // Every word typed must stand in the row.
  function filterable(input) {
    const rows = () => [...$(input.dataset.filter).tBodies[0].rows];
    const shown = $(`${input.dataset.filter}-shown`);
    function look() {
      const wanted = input.value.trim().toLowerCase().split(/\s+/);
      let count = 0;
      for (const row of rows()) {
        row.hidden = !wanted.every((word) => row.dataset.find.includes(word));
        count += row.hidden ? 0 : 1;
      }
      shown.textContent = `${count} of ${rows().length} shown`;
    }
    input.addEventListener("input", look);
    input.closest(".find").hidden = false;
    return look;
  }

  // The stages of one language, or of all: what there was, what left on the way, what is known of it.
  function language() {
    const picker = $("language-picker");
    if (!picker) return;
    const order = data.languages.map((_, i) => i).sort((a, b) => data.languages[a][1].localeCompare(data.languages[b][1], "en"));
    picker.append(el("option", { value: "" }, data.languages.length === 1 ? "All of it" : `All ${data.languages.length} languages`));
    for (const i of order) {
      const [code, name] = data.languages[i];
      picker.append(el("option", { value: String(i) }, code === name ? name : `${name} (${code})`));
    }
    const chosen = () => (picker.value === "" ? null : Number(picker.value));
    const of = (list, i) => (i === null ? list.reduce((sum, value) => sum + value, 0) : list[i]);

    function draw() {
      const i = chosen();
      const first = of(data.stages[0].documents, i);
      const widest = Math.max(1, ...data.stages.map((stage) => of(stage.documents, i)));
      const rows = [];
      data.stages.forEach((stage, place) => {
        const documents = of(stage.documents, i);
        const size = stage.text ? bytes(of(stage.bytes, i)) : `${short(of(stage.tokens, i))} tokens`;
        const bar = el("i", { class: `m bar c-${place ? "subject" : "first"}` });
        bar.style.width = `${(100 * documents) / widest}%`;
        rows.push(el("li", { class: "stage" },
          el("span", { class: "name" }, el("bdi", {}, stage.name)),
          el("span", { class: "plot" }, bar),
          el("span", { class: "figures" }, el("b", {}, number(documents)), ` document${documents === 1 ? "" : "s"}, ${size}`),
          el("span", { class: "of" }, place && first ? share(documents / first) : "")));
        const following = data.stages[place + 1];
        const gone = following && data.joined ? left(i, stage.name, following.name) : [];
        if (gone.length) rows.push(el("li", { class: "gone" }, el("ul", {}, ...gone)));
      });
      $("funnel").replaceChildren(...rows);
      $("facts").replaceChildren(...facts(i));
      const title = i === null ? ["All languages"] : named(data.languages[i][1], data.languages[i][0]);
      $("language-name").replaceChildren(...title);
      $("language-about").textContent = i === null ? "" : `${data.languages[i][3]}, script ${data.languages[i][2]}`;
    }

    // What the step between two stages took out of the folder, and brought into it.
    function left(i, before, after) {
      const step = { "raw identified": "identify", "identified deduped": "dedup", "deduped sampled": "sample" }[`${before} ${after}`];
      const counts = new Map();
      for (const [lang, taken, reason, documents] of data.left) {
        if (taken === step && (i === null || lang === i)) counts.set(reason, (counts.get(reason) || 0) + documents);
      }
      const items = [...counts].sort((a, b) => b[1] - a[1]).map(([reason, documents]) => el("li", {},
        el("i", { class: `swatch c-${data.colours[reason]}` }), `− ${number(documents)} ${reason.replaceAll("_", " ")}`));
      const arrived = step === "identify" ? of(data.arrived, i) : 0;
      if (arrived) items.push(el("li", {}, el("i", { class: "swatch c-subject" }), `+ ${number(arrived)} relabelled in`));
      return items;
    }

    function facts(i) {
      const found = [];
      const add = (title, items) => items.length && found.push(el("div", {}, el("dt", {}, title), ...items));
      const list = (title, rows) => add(title, rows.filter(([lang]) => lang === i).map(([, value, documents]) =>
        el("dd", {}, el("bdi", {}, value), el("span", { class: "code" }, ` ${number(documents)}`))));
      const years = new Map();
      for (const [lang, year, documents] of data.years) {
        if (i === null || lang === i) years.set(year, (years.get(year) || 0) + documents);
      }
      const most = Math.max(...years.values());
      const spread = [...years].sort((a, b) => a[0] - b[0]).map(([year, documents]) => {
        const bar = el("i", { class: "m bar c-first" });
        bar.style.width = `${(100 * documents) / most}%`;
        return el("dd", { class: "year" }, `${year} `, el("span", { class: "plot", "aria-hidden": "true" }, bar), el("span", { class: "code" }, number(documents)));
      });
      if (i === null) {
        add("By year", spread);
        return found;
      }
      if (data.planned[i] !== null) {
        const epochs = data.epochs[i] === null ? "" : `, ${data.epochs[i].toFixed(2)} epochs`;
        add("Planned", [el("dd", {}, `${share(data.planned[i])} of training${epochs}`)]);
      }
      if (data.lengths[i]) {
        const [low, half, high] = data.lengths[i].map(number);
        add("Length in characters", [el("dd", {}, `median ${half}; 10 % below ${low}, 10 % above ${high}`)]);
      }
      list("Scripts seen", data.scripts);
      list("Detected as another language", data.elsewhere);
      list("Domains", data.domains);
      add("By year", spread);
      return found;
    }

    picker.addEventListener("change", draw);
    for (const [id, by] of [["language-before", -1], ["language-after", 1]]) {
      $(id).addEventListener("click", () => {
        const all = picker.options.length;
        picker.selectedIndex = (picker.selectedIndex + by + all) % all;
        draw();
      });
    }
    draw();
    $("language").hidden = false;
  }

  schemes();
  views();
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("input[data-filter]").forEach(filterable);
  language();

  return { data, $, el, number, short, bytes, share, counted, named, sortable, filterable };
})();
