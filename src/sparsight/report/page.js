"use strict";
(() => {
  const tip = document.getElementById("tip");
  for (const chart of document.querySelectorAll("svg.chart")) {
    const title = chart.querySelector(":scope > title");
    chart.setAttribute("aria-label", title.textContent);
    chart.setAttribute("aria-describedby", chart.querySelector(":scope > desc").id);
    chart.removeAttribute("aria-labelledby");
    title.remove();
  }
  for (const title of document.querySelectorAll("svg .hot title")) {
    title.closest(".hot").dataset.tip = title.textContent;
    title.remove();
  }
  const hide = () => { tip.hidden = true; };
  const show = (event) => {
    const hot = event.target.closest ? event.target.closest("[data-tip]") : null;
    if (!hot) { hide(); return; }
    tip.textContent = hot.dataset.tip;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const wide = document.documentElement.clientWidth;
    let x = event.clientX + 14;
    if (x + box.width > wide - 8) x = Math.max(8, event.clientX - box.width - 14);
    let y = event.clientY + 16;
    if (y + box.height > window.innerHeight - 8) y = Math.max(8, event.clientY - box.height - 12);
    tip.style.left = `${x}px`;
    tip.style.top = `${y}px`;
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", hide, true);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
})();
