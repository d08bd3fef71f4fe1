"use strict";
(() => {
  const plots = [...document.querySelectorAll(".plot")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const print = matchMedia("print");

  function coloured(layout) {
    const style = getComputedStyle(document.documentElement);
    const [ink, line, panel] = ["--ink", "--line", "--panel"].map(
      (name) => style.getPropertyValue(name).trim());
    const themed = {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { ...layout.font, color: ink, size: 12, family: "system-ui, sans-serif" },
      hoverlabel: { bgcolor: panel, bordercolor: line, font: { color: ink }, align: "left" },
    };
    for (const name of Object.keys(themed)) {
      if (/^[xy]axis[0-9]*$/.test(name)) {
        themed[name] = { ...themed[name], gridcolor: line, zerolinecolor: line, linecolor: line };
      }
    }
    return themed;
  }

  function draw(plot) {
    const figure = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
    plot.dataset.drawn = "yes";
    return Plotly.react(plot, figure.data, coloured(figure.layout), {
      responsive: true, displaylogo: false,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    });
  }

  // A phone need not draw what nobody scrolls to.
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        draw(entry.target);
      }
    }
  }, { rootMargin: "600px" });
  plots.forEach((plot) => seen.observe(plot));

  const redraw = () => plots.filter((plot) => plot.dataset.drawn).forEach(draw);
  dark.addEventListener("change", redraw);
  print.addEventListener("change", redraw);
  addEventListener("beforeprint", () => plots.forEach(draw));

  document.addEventListener("click", async (event) => {
    if (!event.target.matches("button.copy")) return;
    const text = event.target.closest(".code").querySelector("pre");
    try {
      await navigator.clipboard.writeText(text.textContent);
      event.target.textContent = "copied";
    } catch {  // a page from a file may not be allowed to
      getSelection().selectAllChildren(text);
      event.target.textContent = "selected";
    }
  });
})();
