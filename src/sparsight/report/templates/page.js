"use strict";
// Draws the charts: each at the width of its page, in the colours of the reader's choice. `charts` holds their views.
const charts = {};
{
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const fitted = (spec, width) => {
    if (Array.isArray(spec)) return spec.map((part) => fitted(part, width));
    if (spec === null || typeof spec !== "object") return spec;
    return Object.fromEntries(Object.entries(spec).map(([key, value]) => {
      if (key === "width" && value === "container") return [key, width];
      if (key === "legend" && value && value.columns) return [key, { ...value, columns: Math.min(value.columns, Math.ceil(width / 160)) }];
      return [key, key === "datasets" || key === "values" ? value : fitted(value, width)];
    }));
  };
  const draw = async (figure) => {
    const name = figure.id.slice("chart-".length);
    const host = figure.querySelector(".canvas");
    const spec = read(`spec-${name}`);
    const room = figure.clientWidth - 10;
    const mode = dark.matches ? "dark" : "light";
    if (+figure.dataset.cell) spec.columns = Math.max(1, Math.floor(room / figure.dataset.cell));
    if (charts[name]) charts[name].finalize();
    charts[name] = await vegaEmbed(host, fitted(spec, Math.max(room - figure.dataset.side, 120)), {
      mode: (spec.$schema || "").includes("/vega/") ? "vega" : "vega-lite", ast: true, renderer: "svg",
      config: read("configs")[mode], tooltip: { theme: mode }, actions: false,
    });
    const label = figure.querySelector("figcaption").textContent;
    host.firstElementChild.setAttribute("aria-label", label);
    figure.dispatchEvent(new CustomEvent("drawn", { bubbles: true, detail: name }));
  };
  const all = [...document.querySelectorAll("figure.chart")];
  // One after the other, those in view first, so that a page of many charts answers meanwhile.
  let wanted = 0;
  const drawAll = async () => {
    const mine = ++wanted;
    for (const figure of all) {
      if (mine !== wanted) return;
      await draw(figure);
    }
    document.documentElement.dataset.drawn = all.length;
  };
  drawAll();
  dark.addEventListener("change", drawAll);
  let seen = innerWidth, waiting;
  addEventListener("resize", () => {
    if (innerWidth === seen) return;
    seen = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 200);
  });
}
