"use strict";
// Networks side by side: the table, the scatter, the tree and the details show one state, which stands in the address.
{
  const { columns, rows, names, settings, groups, seeds, ids, parts, shown, axes, most, flips, t } = stored("data");
  const $ = (id) => document.getElementById(id);
  const make = (tag, text, more = {}) => Object.assign(document.createElement(tag), { textContent: text ?? "", ...more });
  const table = $("table"), lines = [...table.tBodies[0].rows], heads = [...table.tHead.rows[0].cells];
  const state = { sort: null, filter: "", x: axes[0], y: axes[1], shown, picked: [], brush: null, all: false };
  let scatter, tree, listed = [];

  // -- numbers as text ------------------------------------------------------------------------------------------
  const digits = (value, most = 4) => Number(value.toPrecision(most)).toLocaleString("en", { maximumFractionDigits: 12 });
  const spell = (value, kind) => {
    if (value === null || value === undefined || value === "") return "–";
    if (typeof value !== "number") return String(value);
    if (kind === "share") return `${(100 * value).toFixed(Math.abs(value) < 0.1 ? 2 : 1)} %`;
    if (kind === "count") return value.toLocaleString("en");
    if (kind === "bytes") return value < 1e3 ? `${value} bytes` : value < 1e6 ? `${digits(value / 1e3)} kB` : `${digits(value / 1e6)} MB`;
    return kind === "seconds" ? `${digits(value)} s` : digits(value);
  };
  const label = (kind) => (kind === "share" ? "datum.value > 1 ? '' : format(100 * datum.value, '~r') + ' %'"
    : kind === "count" || kind === "bytes" ? "format(datum.value, '~s')" : "format(datum.value, '~r')");

  // -- the state in the address -----------------------------------------------------------------------------------
  const remember = () => {
    const { sort, brush } = state;
    const said = {
      sort: sort && `${sort.column}${sort.down ? "-" : "+"}`, filter: state.filter || null,
      axes: state.x !== axes[0] || state.y !== axes[1] ? `${state.x},${state.y}` : null,
      columns: String(state.shown) !== String(shown) ? state.shown.join() : null, picked: state.picked.join() || null,
      brush: brush && [...brush.x, ...brush.y].map((v) => +v.toPrecision(5)).join(),
    };
    history.replaceState(null, "", `#${new URLSearchParams(Object.entries(said).filter(([, value]) => value !== null))}`);
  };
  const recall = () => {
    const said = new URLSearchParams(location.hash.slice(1));
    const whole = (key, end) => (said.get(key) ?? "").split(",").filter((x) => /^\d+$/.test(x)).map(Number).filter((i) => i < end);
    const sort = /^(\d+)([+ -])$/.exec(said.get("sort") ?? ""), both = whole("axes", columns.length);
    const brush = (said.get("brush") ?? "").split(",").map(Number);
    Object.assign(state, {
      sort: sort && +sort[1] <= columns.length ? { column: +sort[1], down: sort[2] === "-" } : null,
      filter: said.get("filter") ?? "", shown: said.has("columns") ? whole("columns", columns.length) : shown,
      picked: [...new Set(whole("picked", rows.length))],
      brush: brush.length === 4 && brush.every(Number.isFinite) ? { x: brush.slice(0, 2), y: brush.slice(2) } : null,
    });
    [state.x, state.y] = both.length === 2 ? both : axes;
  };

  // -- which networks are shown: words that stand in a row, and conditions such as density<0.2 ----------------------
  const plain = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}.]+/gu, "");
  const texts = rows.map((row, i) => [names[i], settings[i], ...row].join(" ").toLowerCase());
  const condition = (word) => {
    const found = /^(.+?)(<=|>=|<|>|=)(.+)$/.exec(word);
    const column = found ? columns.findIndex((c) => plain(c.name).startsWith(plain(found[1]))) : -1;
    if (column < 0) return (i) => texts[i].includes(word.toLowerCase());
    const limit = parseFloat(found[3]) / (found[3].endsWith("%") ? 100 : 1);
    const signs = { "<": [-1], "<=": [-1, 0], ">": [1], ">=": [0, 1], "=": [0] }[found[2]];
    const same = (value) => found[2] === "=" && String(value).toLowerCase() === found[3].toLowerCase();
    return (i) => rows[i][column] !== null && (signs.includes(Math.sign(rows[i][column] - limit)) || same(rows[i][column]));
  };
  const filtered = () => {
    const tests = state.filter.split(/\s+/).filter(Boolean).map(condition);
    return rows.map((_, i) => i).filter((i) => tests.every((test) => test(i)));
  };
  const inside = (value, [a, b]) => value !== null && value >= Math.min(a, b) && value <= Math.max(a, b);
  const brushed = (i) => !state.brush || (inside(rows[i][state.x], state.brush.x) && inside(rows[i][state.y], state.brush.y));

  // -- the table --------------------------------------------------------------------------------------------------
  const order = (a, b) => {
    const { column, down } = state.sort;
    const [u, v] = column ? [rows[a][column - 1], rows[b][column - 1]] : [names[a], names[b]];
    if (u == null || v == null) return (u == null) - (v == null) || a - b;
    const least = typeof u === "number" && typeof v === "number" ? u - v : String(u).localeCompare(String(v), "en", { numeric: true });
    return (down ? -least : least) || a - b;
  };
  const hiding = document.head.appendChild(make("style"));
  const showTable = () => {
    const there = new Set(listed.filter(brushed)), sorted = rows.map((_, i) => i);
    if (state.sort) sorted.sort(order);
    if (sorted.some((i, place) => table.tBodies[0].rows[place] !== lines[i])) {
      const focused = document.activeElement; // which is lost where its row moves
      table.tBodies[0].append(...sorted.map((i) => lines[i]));
      focused.focus();
    }
    let left = state.all ? Infinity : most;
    for (const i of sorted) lines[i].hidden = !there.has(i) || left-- <= 0;
    $("all").hidden = state.all || there.size <= most;
    $("all").textContent = `Show all, not only the first ${most}`;
    heads.forEach((head, i) => { head.ariaSort = state.sort?.column !== i ? "none" : state.sort.down ? "descending" : "ascending"; });
    hiding.textContent = columns.map((_, i) => (state.shown.includes(i) ? "" : `#table tr > :nth-child(${i + 2}) { display: none; }`)).join("\n");
    $("count").textContent = `${there.size} of ${rows.length} networks${state.picked.length ? `, ${state.picked.length} picked` : ""}`;
  };
  const showPicked = () => {
    lines.forEach((line, i) => {
      line.cells[0].firstElementChild.checked = line.classList.toggle("picked", state.picked.includes(i));
    });
    if (scatter) scatter.signal("picked", state.picked).runAsync();
    colourTree();
    details();
  };
  const changed = (more, show) => { Object.assign(state, more); remember(); show(); };
  const pick = (i) => changed({ picked: state.picked.includes(i) ? state.picked.filter((j) => j !== i) : [...state.picked, i] },
    () => { showPicked(); showTable(); });
  const clicked = (_, item) => { if (Number.isInteger(item?.datum?.i)) pick(item.datum.i); };

  // -- the scatter, and which settings are behind, as `sparsight.compare.fronts` has it -----------------------------
  const tail = (x, n) => { // the two-sided p of Student's t with n degrees of freedom: Abramowitz and Stegun 26.7.3 and .4
    const angle = Math.atan(x / Math.sqrt(n)), cos = Math.cos(angle), odd = n % 2;
    let term = odd ? cos : 1, sum = n > 1 ? term : 0;
    for (let k = 2 + odd; k < n - 1; k += 2) sum += term *= cos * cos * (k - 1) / k;
    return 1 - (odd ? 2 / Math.PI * (angle + Math.sin(angle) * sum) : Math.sin(angle) * sum);
  };
  const student = (values) => {
    const n = values.length, mean = values.reduce((a, v) => a + v, 0) / n;
    if (n < 2) return { n, mean, half: null, p: null };
    const error = Math.sqrt(values.reduce((a, v) => a + (v - mean) ** 2, 0) / (n - 1) / n);
    return { n, mean, half: t[Math.min(n - 2, t.length - 1)] * error, p: error ? tail(Math.abs(mean) / error, n - 1) : +!mean };
  };
  const known = (i) => typeof rows[i][state.x] === "number" && typeof rows[i][state.y] === "number";
  const summary = () => {
    const cost = columns[state.x].better || -1, worth = columns[state.y].better || 1, { kind } = columns[state.y];
    const found = [...Map.groupBy(listed.filter(known), (i) => settings[i])].map(([setting, all]) => {
      const [xs, ys] = [state.x, state.y].map((column) => new Map(all.map((i) => [seeds[i], rows[i][column]])));
      const { n, mean: y, half } = student([...ys.values()]);
      return { setting, hue: groups[all[0]], ys, n, x: student([...xs.values()]).mean, y, behind: false,
        low: half === null ? null : y - half, high: half === null ? null : y + half,
        b: `${spell(y, kind)}${half === null ? "" : ` ± ${spell(half, kind)}`}` };
    });
    const several = found.filter((g) => g.n > 1);
    const tested = several.flatMap((a) => several.filter((b) => a !== b && cost * (a.x - b.x) >= 0).map((b) =>
      ({ b, ...student([...a.ys].filter(([seed]) => b.ys.has(seed)).map(([seed, v]) => worth * (v - b.ys.get(seed)))) })))
      .filter(({ p }) => p !== null).sort((one, other) => one.p - other.p);
    for (const [rank, { b, mean, p }] of tested.entries()) {
      if ((tested.length - rank) * p > 0.05) break;
      b.behind ||= mean > 0;
    }
    const front = found.filter((g) => !found.some((o) => cost * (o.x - g.x) >= 0 && worth * (o.y - g.y) >= 0 && (o.x !== g.x || o.y !== g.y)));
    return { means: several.length ? found : [], front: front.length > 1 ? front : [] };
  };
  const filled = (spec, values) => JSON.parse(JSON.stringify(spec).replace(/"@([^@"]+)@"/g, (whole, key) =>
    (key in values ? JSON.stringify(values[key] ?? null) : whole)));
  const logarithmic = (column) => {
    const seen = rows.map((row) => row[column]).filter((v) => typeof v === "number"), least = Math.min(...seen);
    return columns[column].better < 0 && least > 0 && Math.max(...seen) / least > 5;
  };
  const span = (values, log) => {
    const seen = values.filter((v) => typeof v === "number" && (!log || v > 0)), [low, high] = [Math.min(...seen), Math.max(...seen)];
    return !seen.length ? [1, 2] : low < high ? [low, high] : [low - 0.5 * Math.abs(low || 1), high + 0.5 * Math.abs(high || 1)];
  };
  const drawScatter = async () => {
    const [a, b] = [columns[state.x], columns[state.y]], [logX, logY] = [state.x, state.y].map(logarithmic);
    const hues = [...new Set(listed.map((i) => groups[i]))], few = hues.length <= 7;
    const { means, front } = summary();
    const networks = listed.filter(known).map((i) => ({ i, x: rows[i][state.x], y: rows[i][state.y], name: names[i], setting: settings[i],
      hue: few ? groups[i] : "", a: spell(rows[i][state.x], a.kind), b: spell(rows[i][state.y], b.kind) }));
    const spec = filled(stored("scatter"), {
      "x title": a.name, "y title": b.name, "x label": label(a.kind), "y label": label(b.kind),
      "x type": logX ? "log" : "linear", "y type": logY ? "log" : "linear", "x domain": span(networks.map((d) => d.x), logX),
      "y domain": span([...networks, ...means].flatMap((d) => [d.y, d.low, d.high]), logY),
      settings: few ? hues : [""], legend: few && hues.length > 1 ? { columns: 3, symbolType: "circle" } : null,
      step: (a.better || -1) < 0 ? "step-after" : "step-before", networks, front: front.map(({ x, y }) => ({ x, y })),
      means: means.map(({ ys, ...g }) => ({ ...g, hue: few ? g.hue : "" })),
    });
    if (state.brush) spec.layer[1].params[0].value = state.brush;
    const figure = $("chart-scatter");
    figure.querySelector("figcaption").textContent = `How ${b.name} goes with ${a.name}; the line is the front${few ? "" : `; filter to at most 7 of these ${hues.length} settings, and they get colours`}`;
    scatter = await draw(figure, spec, networks.length > 400 ? "canvas" : "svg");
    scatter.signal("picked", state.picked);
    scatter.addSignalListener("brush", (_, value) =>
      changed({ brush: value?.x && value.y ? { x: value.x, y: value.y } : null }, () => { showTable(); colourTree(); }));
    scatter.addEventListener("click", clicked);
    await scatter.runAsync();
  };

  // -- the tree ----------------------------------------------------------------------------------------------------
  const drawTree = async () => {
    const css = getComputedStyle(document.documentElement);
    const ink = Object.fromEntries(["rule", "card", "chosen", "accent", "axis", "soft"].map((name) => [name, css.getPropertyValue(`--${name}`).trim()]));
    tree = await draw($("chart-tree"), filled(stored("tree"), { ink }));
    tree.addEventListener("click", clicked);
    colourTree();
  };
  const colourTree = () => {
    const seen = listed.filter(brushed).map((i) => [ids[i], 1]), chosen = state.picked.map((i) => [ids[i], 2]);
    tree?.signal("state", Object.fromEntries([...seen, ...chosen])).runAsync();
  };

  // -- the picked ones in detail ---------------------------------------------------------------------------------------
  const grid = (caption, head, body) => {
    const box = make("div", "", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: caption });
    const into = box.appendChild(make("table"));
    into.append(make("caption", caption));
    const row = (part, cells, first) => part.insertRow().append(...cells.map((cell, i) =>
      make(first || i === 0 ? "th" : "td", cell.text ?? cell, { scope: first ? "col" : "row", className: cell.better ? "better" : "" })));
    row(into.createTHead(), head, true);
    const under = into.createTBody();
    body.forEach((cells) => row(under, cells, false));
    return box;
  };
  const compared = (who) => columns.map((c, k) => {
    const values = who.map((i) => rows[i][k]), [first] = values;
    if (values.every((v) => v === first)) return null;
    const best = c.better && values.every((v) => typeof v === "number") ? Math.max(...values.map((v) => c.better * v)) : null;
    const gap = (v) => (c.kind === "share" && typeof v === "number" && typeof first === "number" ? ` (${v < first ? "−" : "+"}${Math.abs(100 * (v - first)).toFixed(1)} points)` : "");
    return [c.name, ...values.map((v, j) => ({ text: spell(v, c.kind) + (j ? gap(v) : ""), better: best !== null && c.better * v === best }))];
  }).filter(Boolean);
  const flipped = (a, b) => {
    const [one, two] = [flips.answers[a], flips.answers[b]], { sheet, labels } = flips, called = (k) => flips.names[k] ?? `class ${k}`;
    const there = flips.samples.map((_, k) => k).filter((k) => one[k] !== two[k]);
    const [lost, gained] = [one, two].map((answers) => there.filter((k) => answers[k] === labels[k]).length);
    const fold = make("details", "", { open: true });
    fold.append(make("summary", `Flipped: ${there.length} of the ${flips.samples.length} samples on which networks of this page differ; right only in ${names[a]}: ${lost}, only in ${names[b]}: ${gained}`));
    const box = fold.appendChild(make("ul", "", { className: "flips" }));
    for (const k of there.slice(0, 60)) {
      const item = box.appendChild(make("li"));
      if (sheet && k < sheet.count) {
        const [left, top] = [k % sheet.across, Math.floor(k / sheet.across)];
        Object.assign(item.appendChild(make("span", "", { className: "look" })).style, { width: `${sheet.width}px`, height: `${sheet.height}px`,
          backgroundImage: `url(${sheet.url})`, backgroundPosition: `${-left * sheet.width}px ${-top * sheet.height}px` });
      }
      item.append(make("b", called(labels[k])), make("span", `${called(one[k])} → ${called(two[k])}`), make("small", `sample ${flips.samples[k]}`));
    }
    return fold;
  };
  let latest = 0;
  const details = async () => {
    const mine = ++latest, who = state.picked.slice(0, 7), told = who.map((i) => names[i]), into = $("details");
    for (const name of Object.keys(charts)) if (name.startsWith("detail")) { charts[name].finalize(); delete charts[name]; }
    into.replaceChildren();
    $("picks").hidden = who.length > 1;
    if (who.length < 2) return;
    into.append(grid("What differs; the better values are marked", ["", ...told], compared(who)));
    if (flips?.answers[who[0]] && flips.answers[who[1]]) into.append(flipped(who[0], who[1]));
    const area = into.appendChild(make("div", "", { className: "charts" }));
    const drawings = Object.entries(parts).filter(([, { values }]) => who.filter((i) => values[i]).length > 1).map(([what, { names: of, values }], k) => {
      const kind = what.startsWith("PQ") ? "number" : "share";
      const figure = area.appendChild(make("figure", "", { className: "chart", id: `chart-detail${k}` })), fold = make("details");
      figure.dataset.side = 30 + 7.2 * Math.min(42, Math.max(...of.map((name) => name.length)));
      figure.append(make("figcaption", `${what[0].toUpperCase()}${what.slice(1)}, one beside the other`), make("div", "", { className: "canvas" }), fold);
      fold.append(make("summary", "These numbers as a table"), grid(what, ["", ...told], of.map((part, j) => [part, ...who.map((i) => spell(values[i]?.[j], kind))])));
      const data = of.flatMap((part, j) => who.filter((i) => (values[i]?.[j] ?? null) !== null)
        .map((i) => ({ part, network: names[i], value: values[i][j], shown: spell(values[i][j], kind) })));
      return [figure, filled(stored("detail"), { label: label(kind), part: "of", what, networks: told, rows: data })];
    });
    for (const [figure, spec] of drawings) if (mine === latest) await draw(figure, spec);
  };

  // -- controls --------------------------------------------------------------------------------------------------------
  const boxes = [...$("columns").querySelectorAll("input")];
  for (const axis of ["x", "y"]) $(axis).addEventListener("change", () => changed({ [axis]: +$(axis).value, brush: null }, showAll));
  heads.forEach((head, i) => {
    const button = make("button", head.textContent, { type: "button" });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const again = state.sort?.column === i;
      changed({ sort: again && state.sort.down ? null : { column: i, down: again } }, showTable);
    });
  });
  lines.forEach((line, i) => line.cells[0].prepend(make("input", "", { type: "checkbox", ariaLabel: `pick ${names[i]}` })));
  table.tBodies[0].addEventListener("change", (event) => pick(lines.indexOf(event.target.closest("tr"))));
  table.tBodies[0].addEventListener("keydown", (event) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (!step) return;
    event.preventDefault();
    let line = event.target.closest("tr")[step];
    while (line?.hidden) line = line[step];
    line?.cells[0].firstElementChild.focus();
  });
  $("columns").addEventListener("change", () => changed({ shown: boxes.filter((b) => b.checked).map((b) => +b.value) }, showTable));
  let waiting;
  $("filter").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => changed({ filter: $("filter").value.trim() }, showAll), 150);
  });
  $("all").addEventListener("click", () => { state.all = true; showTable(); });
  $("clear").addEventListener("click", () => changed({ picked: [], brush: null, filter: "" }, showAll));
  const showAll = async () => {
    $("filter").value = state.filter;
    [$("x").value, $("y").value] = [state.x, state.y];
    for (const box of boxes) box.checked = state.shown.includes(+box.value);
    listed = filtered();
    showTable();
    if ($("x").length) await drawScatter();
    showPicked();
  };
  for (const tools of document.querySelectorAll(".tools")) tools.hidden = false;
  recall();
  addEventListener("hashchange", () => { recall(); showAll(); });
  const near = new IntersectionObserver((seen) => { // the tree is drawn as soon as it comes into view
    if (seen.some((one) => one.isIntersecting)) { near.disconnect(); drawTree(); }
  }, { rootMargin: "400px" });
  near.observe($("chart-tree"));
  also.push(async () => { await showAll(); if (tree) await drawTree(); });
}
