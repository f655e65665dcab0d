// What each sampling strategy would do: controls in, a table of strategies, curves and a table of languages out.
(() => {
  "use strict";

  const { data, $, el, number, counted, share, named, sortable, filterable } = page;
  const { METHODS, plan, evenness } = sampling;
  const WORDS = {
    proportional: "as the sizes",
    temperature: "size to the power of alpha",
    unimax: "equal shares up to the most epochs",
    "lola-v1": "4 % (en 2 %, de 16 %), small ones whole",
    all: "everything once",
  };
  const SVG = "http://www.w3.org/2000/svg";

  let pool = data.pools[0];
  let available = 0;
  let total = null; // null: as much as there is
  let method = "temperature";
  let now = [];
  let lowest = 1e-6;
  let highest = 1;
  let cells = [];
  let plans = {};
  let waiting = false;
  let width = 0; // of the curves; asking for it while drawing would lay the page out twice

  const usable = (name) => name !== "lola-v1" || pool.unit === "documents";

  function takePool() {
    pool = data.pools[$("pool").selectedIndex];
    available = pool.sizes.reduce((sum, size) => sum + size, 0);
    total = null;
    now = pool.sizes.map((size) => (available ? size / available : 0));
    lowest = Math.min(1, ...now.filter((value) => value > 0)) / 2;
    highest = Math.min(1, 2 * now.reduce((a, b) => Math.max(a, b), lowest));
    if (!usable(method)) method = "temperature";
    $("budget").value = "0";
    $("budget-exact").value = "";
    fillLanguages();
    change();
  }

  // Rows once for each pool; moving a slider only changes their cells.
  function fillLanguages() {
    const order = [...pool.sizes.keys()].sort((a, b) => pool.sizes[b] - pool.sizes[a] || a - b);
    const value = () => el("td", { class: "n" });
    cells = [];
    const rows = order.map((i) => {
      const size = el("td", { class: "n", "data-v": String(pool.sizes[i]) }, counted(pool.sizes[i], pool.unit));
      const before = el("td", { class: "n", "data-v": String(now[i]) }, share(now[i]));
      const [budget, epochs, after] = [value(), value(), value()];
      const [span, was, is] = ["m span c-span", "m circle c-first", "m diamond c-subject"].map((name) => el("i", { class: name }));
      was.style.left = `${place(now[i])}%`;
      cells.push({ i, budget, epochs, after, span, was, is });
      const plot = el("td", { class: "dots", "aria-hidden": "true" }, el("div", { class: "plot" }, span, was, is));
      return el("tr", { "data-find": `${pool.names[i]} ${pool.codes[i]}`.toLowerCase() },
        el("th", { scope: "row" }, ...named(pool.names[i], pool.codes[i])), size, budget, epochs, before, after, plot);
    });
    const body = $("sample-table").tBodies[0];
    body.replaceChildren(...rows);
    for (const head of $("sample-table").tHead.rows[0].cells) head.removeAttribute("aria-sort");
    $("sample-table").tHead.rows[0].cells[1].setAttribute("aria-sort", "descending");
  }

  // On the logarithmic scale of the plots, in per cent; what lies outside stays at the edge.
  const place = (value) => (value > lowest ? Math.min(100, (100 * Math.log(value / lowest)) / Math.log(highest / lowest)) : 0);

  // Several changes before the next picture are drawn once.
  function change() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  }

  function draw() {
    const alpha = Number($("alpha").value);
    const maxEpochs = Number($("epochs").value);
    const asked = total === null ? available : total;
    $("alpha-shown").textContent = alpha.toFixed(2);
    $("epochs-shown").textContent = String(maxEpochs);
    $("budget-shown").textContent = `${counted(asked, pool.unit)} ${pool.unit === "bytes" ? "" : pool.unit}`.trim()
      + (available ? `, ${share(asked / available)} of what there is` : "");
    const options = { total: asked, alpha, maxEpochs, percent: pool.percent, floor: pool.floor };
    plans = {};
    for (const name of METHODS) if (usable(name)) plans[name] = plan(name, pool.sizes, options);
    drawMethods();
    drawLanguages();
    if (width) drawCurves();
  }

  function drawMethods() {
    for (const row of $("methods").tBodies[0].rows) {
      const name = row.dataset.method;
      const input = row.querySelector("input");
      const made = plans[name];
      input.disabled = !made;
      input.checked = name === method;
      row.classList.toggle("chosen", name === method);
      const texts = made ? figures(made) : ["counts documents", "", "", "", "", "", ""];
      texts.forEach((text, i) => (row.cells[i + 1].textContent = text));
    }
  }

  function figures(made) {
    const { effective, half } = evenness(made.shares);
    const most = made.epochs.reduce((a, b) => Math.max(a, b), 0);
    const repeated = made.epochs.filter((epochs) => epochs > 1).length;
    const largest = made.shares.reduce((a, b) => Math.max(a, b), 0);
    return [counted(made.spent, pool.unit), made.unspent ? counted(made.unspent, pool.unit) : "0", effective.toFixed(1),
      share(largest), share(half), most.toFixed(2), String(repeated)];
  }

  function drawLanguages() {
    const made = plans[method];
    for (const { i, budget, epochs, after, span, is } of cells) {
      set(budget, made.budgets[i], counted(made.budgets[i], pool.unit));
      set(epochs, made.epochs[i], made.epochs[i].toFixed(2));
      set(after, made.shares[i], share(made.shares[i]));
      epochs.classList.toggle("over", made.epochs[i] > 1);
      const [from, to] = [place(now[i]), place(made.shares[i])];
      is.style.left = `${to}%`;
      span.style.left = `${Math.min(from, to)}%`;
      span.style.width = `${Math.abs(to - from)}%`;
    }
    $("sample-title").textContent = `Every language under ${method}`;
  }

  function set(cell, value, text) {
    cell.dataset.v = String(value);
    cell.textContent = text;
  }

  // Share by rank: how steeply each strategy falls from the largest language to the smallest.
  function drawCurves() {
    const place = $("curves");
    const height = width < 500 ? 220 : 280;
    const edge = { left: 58, right: 10, top: 10, bottom: 30 };
    const order = [...pool.sizes.keys()].sort((a, b) => pool.sizes[b] - pool.sizes[a] || a - b);
    const all = Object.values(plans).flatMap((made) => made.shares).filter((value) => value > 0);
    const low = 10 ** Math.floor(Math.log10(Math.min(...all, 0.1)));
    const x = (rank) => edge.left + (rank / Math.max(1, order.length - 1)) * (width - edge.left - edge.right);
    const y = (value) => edge.top + (Math.log(1 / Math.max(low, value)) / Math.log(1 / low)) * (height - edge.top - edge.bottom);
    const parts = [];
    const decades = Math.round(-Math.log10(low));
    for (let ten = 0; ten <= decades; ten += Math.ceil(decades / 5)) {
      const at = y(10 ** -ten);
      parts.push(svg("line", { x1: edge.left, x2: width - edge.right, y1: at, y2: at, class: "grid" }));
      parts.push(svg("text", { x: edge.left - 6, y: at + 4, "text-anchor": "end" }, percent(2 - ten)));
    }
    parts.push(svg("text", { x: edge.left, y: height - 8 }, "largest language"));
    parts.push(svg("text", { x: width - edge.right, y: height - 8, "text-anchor": "end" }, "smallest"));
    for (const name of [...METHODS.filter((one) => one !== method && plans[one]), method]) {
      const points = order.map((i, rank) => [x(rank), plans[name].shares[i]]).filter(([, value]) => value > 0);
      const path = points.map(([at, value], i) => `${i ? "L" : "M"}${at.toFixed(1)},${y(value).toFixed(1)}`).join("");
      parts.push(svg("path", { d: path, class: `line s-${name}${name === method ? " chosen" : ""}` }));
    }
    const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    drawing.append(...parts);
    const words = Object.entries(plans).map(([name, made]) => `${name} ${share(made.shares.reduce((a, b) => Math.max(a, b), 0))}`);
    place.setAttribute("aria-label", `Curves of share by rank of the language. Share of the largest language: ${words.join(", ")}.`);
    place.replaceChildren(drawing);
  }

  // A power of ten of per cent, short at any size.
  function percent(power) {
    const raised = [...String(power)].map((sign) => (sign === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(sign)])).join("");
    return power >= -3 ? `${Number((10 ** power).toPrecision(1))}%` : `10${raised} %`;
  }

  function svg(tag, attributes, text) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
    if (text !== undefined) made.textContent = text;
    return made;
  }

  for (const one of data.pools) $("pool").append(el("option", {}, one.name));
  for (const name of METHODS) {
    const input = el("input", { type: "radio", name: "method", value: name, id: `method-${name}` });
    input.addEventListener("change", () => {
      method = name;
      change();
    });
    const label = el("label", { for: `method-${name}` }, el("i", { class: `swatch s-${name}` }), name, el("span", { class: "code" }, ` ${WORDS[name]}`));
    const row = el("tr", { "data-method": name }, el("th", { scope: "row" }, input, label));
    for (let i = 0; i < 7; i += 1) row.append(el("td", { class: "n" }));
    $("methods").tBodies[0].append(row);
  }
  $("pool").addEventListener("change", () => {
    takePool();
    look();
  });
  $("alpha").addEventListener("input", change);
  $("epochs").addEventListener("input", change);
  $("budget").addEventListener("input", () => {
    const power = Number($("budget").value);
    total = power === 0 ? null : Math.round(available * 10 ** power);
    $("budget-exact").value = "";
    change();
  });
  $("budget-exact").addEventListener("input", () => {
    const asked = Math.round(Number($("budget-exact").value));
    total = asked > 0 && Number.isSafeInteger(asked) ? asked : null;
    $("budget").value = total === null || !available ? "0" : String(Math.log10(total / available));
    change();
  });
  sortable($("sample-table"));
  $("sampling").hidden = false;
  const look = filterable($("sample-find"));
  takePool();
  look();
  new ResizeObserver(([entry]) => {
    const room = Math.max(240, Math.floor(entry.contentRect.width));
    if (room === width) return;
    width = room;
    // Not now: what is drawn may change the sizes that are being told.
    requestAnimationFrame(() => {
      if (Object.keys(plans).length) drawCurves();
    });
  }).observe($("curves"));
})();
