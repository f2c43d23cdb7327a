"use strict";
// Networks side by side: the table, the scatter, the tree and the details show one state, which stands in the address.
{
  const { columns, rows, names, settings, ids, parents, made, parts, shown, axes, most, flips, t } = stored("data");
  const $ = (id) => document.getElementById(id);
  const make = (tag, text, more = {}) => Object.assign(document.createElement(tag), { textContent: text ?? "", ...more });
  const table = $("table");
  const lines = [...table.tBodies[0].rows];
  const heads = [...table.tHead.rows[0].cells];
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
  const label = (kind) => (kind === "share" ? "format(100 * datum.value, '~r') + ' %'"
    : kind === "count" || kind === "bytes" ? "format(datum.value, '~s')" : "format(datum.value, '~r')");

  // -- the state in the address -----------------------------------------------------------------------------------
  const remember = () => {
    const said = new URLSearchParams();
    if (state.sort) said.set("sort", `${state.sort.column}${state.sort.down ? "-" : "+"}`);
    if (state.filter) said.set("filter", state.filter);
    if (state.x !== axes[0] || state.y !== axes[1]) said.set("axes", `${state.x},${state.y}`);
    if (String(state.shown) !== String(shown)) said.set("columns", state.shown.join());
    if (state.picked.length) said.set("picked", state.picked.join());
    if (state.brush) said.set("brush", [...state.brush.x, ...state.brush.y].map((v) => +v.toPrecision(5)).join());
    history.replaceState(null, "", `#${said}`);
  };
  const recall = () => {
    const said = new URLSearchParams(location.hash.slice(1));
    const whole = (text, end) => (text ?? "").split(",").filter((x) => /^\d+$/.test(x)).map(Number).filter((i) => i < end);
    const sort = /^(\d+)([+ -])$/.exec(said.get("sort") ?? "");
    state.sort = sort && +sort[1] <= columns.length ? { column: +sort[1], down: sort[2] === "-" } : null;
    state.filter = said.get("filter") ?? "";
    [state.x, state.y] = whole(said.get("axes"), columns.length).length === 2 ? whole(said.get("axes"), columns.length) : axes;
    state.shown = said.has("columns") ? whole(said.get("columns"), columns.length) : shown;
    state.picked = [...new Set(whole(said.get("picked"), rows.length))];
    const brush = (said.get("brush") ?? "").split(",").map(Number);
    state.brush = brush.length === 4 && brush.every(Number.isFinite) ? { x: brush.slice(0, 2), y: brush.slice(2) } : null;
  };

  // -- which networks are shown: words that stand in a row, and conditions such as density<0.2 ----------------------
  const plain = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}.]+/gu, "");
  const condition = (word) => {
    const found = /^(.+?)(<=|>=|<|>|=)(.+)$/.exec(word);
    const column = found ? columns.findIndex((c) => plain(c.name).startsWith(plain(found[1]))) : -1;
    if (column < 0) return (i) => texts[i].includes(word.toLowerCase());
    const share = found[3].endsWith("%"), limit = parseFloat(found[3]) / (share ? 100 : 1);
    const tests = { "<": (v) => v < limit, "<=": (v) => v <= limit, ">": (v) => v > limit, ">=": (v) => v >= limit,
      "=": (v) => v === limit || String(v).toLowerCase() === found[3].toLowerCase() };
    return (i) => rows[i][column] !== null && tests[found[2]](rows[i][column]);
  };
  const texts = rows.map((row, i) => [names[i], settings[i], ...row].join(" ").toLowerCase());
  const inside = (value, [a, b]) => value !== null && value >= Math.min(a, b) && value <= Math.max(a, b);
  const filtered = () => {
    const tests = state.filter.split(/\s+/).filter(Boolean).map(condition);
    return rows.map((row, i) => i).filter((i) => tests.every((test) => test(i)));
  };
  const brushed = (i) => !state.brush || (inside(rows[i][state.x], state.brush.x) && inside(rows[i][state.y], state.brush.y));

  // -- the table --------------------------------------------------------------------------------------------------
  const order = (a, b) => {
    const { column, down } = state.sort;
    const [u, v] = column ? [rows[a][column - 1], rows[b][column - 1]] : [names[a], names[b]];
    if (u === null || v === null || u === undefined || v === undefined) return (u == null) - (v == null) || a - b;
    const least = typeof u === "number" && typeof v === "number" ? u - v : String(u).localeCompare(String(v), "en", { numeric: true });
    return (down ? -least : least) || a - b;
  };
  const hiding = document.head.appendChild(document.createElement("style"));
  const showTable = () => {
    const there = new Set(listed.filter(brushed));
    const sorted = rows.map((_, i) => i);
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
    heads.forEach((head, i) => {
      const mine = state.sort && state.sort.column === i;
      head.setAttribute("aria-sort", mine ? (state.sort.down ? "descending" : "ascending") : "none");
    });
    hiding.textContent = columns.map((_, i) => i).filter((i) => !state.shown.includes(i))
      .map((i) => `#table tr > :nth-child(${i + 2}) { display: none; }`).join("\n");
    $("count").textContent = `${there.size} of ${rows.length} networks${state.picked.length ? `, ${state.picked.length} picked` : ""}`;
  };
  const showPicked = () => {
    lines.forEach((line, i) => {
      const on = state.picked.includes(i);
      line.classList.toggle("picked", on);
      line.cells[0].firstElementChild.checked = on;
    });
    if (scatter) scatter.signal("picked", state.picked).runAsync();
    colourTree();
    details();
  };
  const pick = (i) => {
    state.picked = state.picked.includes(i) ? state.picked.filter((j) => j !== i) : [...state.picked, i];
    remember();
    showPicked();
    showTable();
  };

  // -- the scatter -----------------------------------------------------------------------------------------------------
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const summary = () => {
    const groups = new Map();
    for (const i of listed) {
      const [x, y] = [rows[i][state.x], rows[i][state.y]];
      if (typeof x !== "number" || typeof y !== "number") continue;
      if (!groups.has(settings[i])) groups.set(settings[i], []);
      groups.get(settings[i]).push([x, y]);
    }
    const found = [...groups].map(([setting, points]) => {
      const ys = points.map((p) => p[1]), n = ys.length, middle = mean(ys);
      const spread = n > 1 ? Math.sqrt(ys.reduce((a, v) => a + (v - middle) ** 2, 0) / (n - 1)) : null;
      const half = n > 1 ? t[Math.min(n - 2, t.length - 1)] * spread / Math.sqrt(n) : null;
      return { setting, n, x: mean(points.map((p) => p[0])), y: middle, half };
    });
    const sign = columns[state.y].better || 1, cost = columns[state.x].better || -1;
    const dearer = (a, b) => cost * (a.x - b.x) <= 0; // a costs as much as b, or more
    const several = found.some((g) => g.n > 1);
    for (const g of found) {
      g.behind = g.half !== null && found.some((o) => o !== g && o.half !== null && dearer(g, o)
        && (sign > 0 ? o.y - o.half > g.y + g.half : o.y + o.half < g.y - g.half));
      g.low = g.half === null ? null : g.y - g.half;
      g.high = g.half === null ? null : g.y + g.half;
      g.b = `${spell(g.y, columns[state.y].kind)}${g.half === null ? "" : ` ± ${spell(g.half, columns[state.y].kind)}`}`;
    }
    const front = found.filter((g) => !found.some((o) => o !== g && dearer(g, o) && sign * (o.y - g.y) >= 0
      && (o.x !== g.x || o.y !== g.y))).map((g) => ({ x: g.x, y: g.y }));
    return { means: several ? found : [], front: front.length > 1 ? front : [] };
  };
  const filled = (spec, values) => JSON.parse(JSON.stringify(spec).replace(/"@([^@"]+)@"/g, (whole, key) =>
    (key in values ? JSON.stringify(values[key] ?? null) : whole)));
  const logarithmic = (column) => {
    const seen = rows.map((row) => row[column]).filter((v) => typeof v === "number");
    const least = Math.min(...seen);
    return columns[column].better < 0 && least > 0 && Math.max(...seen) / least > 5;
  };
  const scatterSpec = stored("scatter");
  const drawScatter = async () => {
    const [a, b] = [columns[state.x], columns[state.y]];
    const groups = [...new Set(settings.map((s) => s.replace(/, level \d+|, dense control/, "")))];
    const few = groups.length <= 7;
    const spec = filled(scatterSpec, {
      "x title": a.name, "y title": b.name, "x label": label(a.kind), "y label": label(b.kind),
      "x type": logarithmic(state.x) ? "log" : "linear", "y type": logarithmic(state.y) ? "log" : "linear",
      settings: few ? groups : [""], legend: few && groups.length > 1 ? { columns: 3, symbolType: "circle" } : null,
      step: (a.better || -1) < 0 ? "step-after" : "step-before",
    });
    const of = (setting) => (few ? setting.replace(/, level \d+|, dense control/, "") : "");
    const { means, front } = summary();
    spec.datasets.networks = listed.map((i) => ({ i, x: rows[i][state.x], y: rows[i][state.y], name: names[i], setting: settings[i], hue: of(settings[i]),
      a: spell(rows[i][state.x], a.kind), b: spell(rows[i][state.y], b.kind) })).filter((d) => typeof d.x === "number" && typeof d.y === "number");
    spec.datasets.means = means.map((g) => ({ ...g, hue: of(g.setting) }));
    spec.datasets.front = front;
    if (state.brush) spec.layer[1].params[0].value = state.brush;
    const span = (field) => {
      const seen = [...spec.datasets.networks, ...means].flatMap((d) => (field === "x" ? [d.x] : [d.y, d.low, d.high]))
        .filter((v) => typeof v === "number" && (!logarithmic(state[field]) || v > 0));
      const [low, high] = [Math.min(...seen), Math.max(...seen)];
      return !seen.length ? [1, 2] : low < high ? [low, high] : [low - 0.5 * Math.abs(low || 1), high + 0.5 * Math.abs(high || 1)];
    };
    for (const axis of spec.layer.flatMap((layer) => Object.values(layer.encoding || {})).concat(Object.values(spec.encoding))) {
      if (axis.scale && axis.scale.type) axis.scale.domain = span(axis.field === "x" ? "x" : "y");
    }
    const figure = $("chart-scatter");
    figure.querySelector("figcaption").textContent = `How ${b.name} goes with ${a.name}; the line is the front`;
    scatter = await draw(figure, spec, spec.datasets.networks.length > 400 ? "canvas" : "svg");
    scatter.signal("picked", state.picked);
    scatter.addSignalListener("brush", (_, value) => {
      state.brush = value && value.x && value.y ? { x: value.x, y: value.y } : null;
      remember();
      showTable();
      colourTree();
    });
    scatter.addEventListener("click", (_, item) => {
      if (item && item.datum && Number.isInteger(item.datum.i)) pick(item.datum.i);
    });
    await scatter.runAsync();
  };

  // -- the tree ----------------------------------------------------------------------------------------------------
  const drawTree = async () => {
    const nodes = new Map([["root", { id: "root", parent: null, label: "all networks", made: "", text: "" }]]);
    ids.forEach((id, i) => {
      if (!nodes.has(id)) nodes.set(id, { id, i, parent: parents[i] || "root", label: names[i], made: made[i], text: "" });
    });
    for (const node of nodes.values()) {
      for (let up = node, seen = new Set([node.id]); up && up.parent !== null; up = nodes.get(up.parent)) {
        if (!nodes.has(up.parent) || seen.has(up.parent)) { up.parent = "root"; break; } // what is not shown, or a circle
        seen.add(up.parent);
      }
    }
    const inner = new Set([...nodes.values()].map((node) => node.parent));
    const leaves = nodes.size - inner.size + 1;
    for (const node of nodes.values()) if (leaves <= 80 && !inner.has(node.id)) node.text = node.label;
    const css = getComputedStyle(document.documentElement);
    const text = JSON.stringify(stored("tree")).replace(/@(rule|card|chosen|accent|axis|soft)@/g, (_, name) => css.getPropertyValue(`--${name}`).trim());
    const spec = filled(JSON.parse(text), { height: Math.max(120, 18 * leaves), right: leaves <= 80 ? 190 : 12 });
    spec.width = Math.max(200, $("chart-tree").clientWidth - (leaves <= 80 ? 216 : 40));
    spec.data[0].values = [...nodes.values()];
    tree = await draw($("chart-tree"), spec);
    tree.addEventListener("click", (_, item) => { if (item && item.datum && Number.isInteger(item.datum.i)) pick(item.datum.i); });
    colourTree();
  };
  const colourTree = () => {
    if (!tree) return;
    const colours = {};
    for (const i of listed) if (brushed(i)) colours[ids[i]] = 1;
    for (const i of state.picked) colours[ids[i]] = 2;
    tree.signal("state", colours).runAsync();
  };

  // -- the picked ones in detail ---------------------------------------------------------------------------------------
  const grid = (caption, head, body) => {
    const box = make("div", "", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: caption });
    const made = box.appendChild(make("table"));
    made.append(make("caption", caption));
    const row = (into, cells, first) => {
      const line = into.appendChild(make("tr"));
      cells.forEach((cell, i) => {
        const part = line.appendChild(make(first || i === 0 ? "th" : "td", cell.text ?? cell));
        if (first || i === 0) part.scope = first ? "col" : "row";
        if (cell.better) part.className = "better";
      });
    };
    row(made.appendChild(make("thead")), head, true);
    const into = made.appendChild(make("tbody"));
    body.forEach((cells) => row(into, cells, false));
    return box;
  };
  const compared = (who) => columns.map((c, k) => {
    const values = who.map((i) => rows[i][k]);
    if (values.every((v) => v === values[0])) return null;
    const best = c.better && values.every((v) => typeof v === "number") ? Math.max(...values.map((v) => c.better * v)) : null;
    return [c.name, ...values.map((v, j) => {
      const gap = j && typeof v === "number" && typeof values[0] === "number" && c.kind === "share" ? ` (${v < values[0] ? "−" : "+"}${Math.abs(100 * (v - values[0])).toFixed(1)} points)` : "";
      return { text: spell(v, c.kind) + gap, better: best !== null && c.better * v === best };
    })];
  }).filter(Boolean);
  const kindOf = (what) => (what.startsWith("PQ") ? "number" : "share");
  const flipped = (a, b) => {
    const [one, two] = [flips.answers[a], flips.answers[b]], called = (k) => flips.names[k] ?? `class ${k}`;
    const there = flips.samples.map((_, k) => k).filter((k) => one[k] !== two[k]);
    const gained = there.filter((k) => two[k] === flips.labels[k]).length, lost = there.filter((k) => one[k] === flips.labels[k]).length;
    const fold = make("details", "", { open: true });
    fold.append(make("summary", `Flipped: ${there.length} of the ${flips.samples.length} samples on which networks of this page differ; right only in ${names[a]}: ${lost}, only in ${names[b]}: ${gained}`));
    const box = fold.appendChild(make("ul", "", { className: "flips" }));
    for (const k of there.slice(0, 60)) {
      const item = box.appendChild(make("li"));
      const { sheet } = flips;
      if (sheet && k < sheet.count) {
        const look = item.appendChild(make("span", "", { className: "look" }));
        Object.assign(look.style, { width: `${sheet.width}px`, height: `${sheet.height}px`, backgroundImage: `url(${sheet.url})`,
          backgroundPosition: `${-(k % sheet.across) * sheet.width}px ${-Math.floor(k / sheet.across) * sheet.height}px` });
      }
      item.append(make("b", called(flips.labels[k])), make("span", `${called(one[k])} → ${called(two[k])}`), make("small", `sample ${flips.samples[k]}`));
    }
    return fold;
  };
  let latest = 0;
  const details = async () => {
    const mine = ++latest, who = state.picked.slice(0, 7), into = $("details");
    for (const name of Object.keys(charts)) if (name.startsWith("detail")) { charts[name].finalize(); delete charts[name]; }
    into.replaceChildren();
    $("picks").hidden = who.length > 1;
    if (who.length < 2) return;
    const told = who.map((i) => names[i]);
    into.append(grid("What differs; the better values are marked", ["", ...told], compared(who)));
    if (flips && flips.answers[who[0]] && flips.answers[who[1]]) into.append(flipped(who[0], who[1]));
    const area = into.appendChild(make("div", "", { className: "charts" }));
    const spec = stored("detail");
    const there = Object.entries(parts).filter(([, { values }]) => who.filter((i) => values[i]).length > 1);
    const figures = there.map(([what, { names: of, values }], k) => {
      const figure = area.appendChild(make("figure", "", { className: "chart", id: `chart-detail${k}` }));
      figure.append(make("figcaption", `${what[0].toUpperCase()}${what.slice(1)}, one beside the other`), make("div", "", { className: "canvas" }));
      figure.dataset.side = 30 + 7.2 * Math.min(42, Math.max(...of.map((name) => name.length)));
      const fold = figure.appendChild(make("details"));
      fold.append(make("summary", "These numbers as a table"), grid(what, ["", ...told],
        of.map((part, j) => [part, ...who.map((i) => spell(values[i] && values[i][j], kindOf(what)))])));
      return figure;
    });
    for (const [k, [what, { names: of, values }]] of there.entries()) {
      const kind = kindOf(what);
      const now = filled(spec, { label: label(kind), part: "of", what, networks: told });
      now.datasets.rows = of.flatMap((part, j) => who.filter((i) => values[i] && values[i][j] !== null)
        .map((i) => ({ part, network: names[i], value: values[i][j], shown: spell(values[i][j], kind) })));
      await draw(figures[k], now);
      if (mine !== latest) return;
    }
  };

  // -- controls --------------------------------------------------------------------------------------------------------
  const numbers = columns.map((c, i) => i).filter((i) => columns[i].kind !== "text");
  for (const axis of ["x", "y"]) {
    $(axis).append(...numbers.map((i) => make("option", columns[i].name, { value: i })));
    $(axis).addEventListener("change", () => { state[axis] = +$(axis).value; state.brush = null; remember(); showAll(); });
  }
  heads.forEach((head, i) => {
    const button = make("button", head.textContent, { type: "button" });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const again = state.sort && state.sort.column === i;
      state.sort = again && state.sort.down ? null : { column: i, down: Boolean(again) };
      remember();
      showTable();
    });
  });
  lines.forEach((line, i) => {
    const box = make("input", "", { type: "checkbox" });
    box.setAttribute("aria-label", `pick ${names[i]}`);
    line.cells[0].prepend(box);
  });
  table.tBodies[0].addEventListener("change", (event) => pick(lines.indexOf(event.target.closest("tr"))));
  table.tBodies[0].addEventListener("keydown", (event) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (!step) return;
    event.preventDefault();
    let line = event.target.closest("tr")[step];
    while (line && line.hidden) line = line[step];
    if (line) line.cells[0].firstElementChild.focus();
  });
  columns.forEach((c, i) => {
    const box = make("input", "", { type: "checkbox", value: i });
    const line = $("columns").appendChild(make("label"));
    line.append(box, ` ${c.name}`);
    box.addEventListener("change", () => {
      state.shown = columns.map((_, j) => j).filter((j) => (j === i ? box.checked : state.shown.includes(j)));
      remember();
      showTable();
    });
  });
  let waiting;
  $("filter").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { state.filter = $("filter").value.trim(); remember(); showAll(); }, 150);
  });
  $("all").addEventListener("click", () => { state.all = true; showTable(); });
  $("clear").addEventListener("click", () => { Object.assign(state, { picked: [], brush: null, filter: "" }); remember(); showAll(); });
  const showAll = async () => {
    $("filter").value = state.filter;
    [$("x").value, $("y").value] = [state.x, state.y];
    for (const box of $("columns").querySelectorAll("input")) box.checked = state.shown.includes(+box.value);
    listed = filtered();
    showTable();
    if (numbers.length) await drawScatter();
    showPicked();
  };
  for (const tools of document.querySelectorAll(".tools")) tools.hidden = false;
  recall();
  addEventListener("hashchange", () => { recall(); showAll(); });
  let drawn = false; // the tree, as soon as it comes into view
  new IntersectionObserver((seen) => {
    if (drawn || !seen.some((one) => one.isIntersecting)) return;
    drawn = true;
    drawTree();
  }, { rootMargin: "400px" }).observe($("chart-tree"));
  also.push(async () => { await showAll(); if (drawn) await drawTree(); });
}
