"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";

  function add(name, attributes, parent, text = "") {
    const node = document.createElementNS(name === "svg" ? SVG : parent.namespaceURI, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    node.textContent = text;
    parent.appendChild(node);
    return node;
  }

  function short(value) {
    if (value === null) return "not finite";
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 1e4 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  }

  // Convergence: error over epochs, time or work, one line for each stage.

  const HEIGHT = 420, LEFT = 70, RIGHT = 16, TOP = 14, BOTTOM = 46;
  const chart = document.getElementById("chart");
  const finite = data.rows.filter((row) => row.val_rel_l2 !== null && row.val_finest_rel_l2 !== null);
  const tip = document.getElementById("tip");
  const finest = document.getElementById("finest");
  let points = [], quantity = "epochs";

  function ticks(low, high, count) {
    const raw = (high - low) / count || 1, power = Math.pow(10, Math.floor(Math.log10(raw)));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const places = [];
    for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-9; t += step) {
      places.push(Number(t.toPrecision(12)));
    }
    return places;
  }

  function logTicks(low, high) {
    for (const mantissas of [[1], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]]) {
      const places = [];
      for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++) {
        for (const m of mantissas) places.push(Number((m * Math.pow(10, p)).toPrecision(6)));
      }
      const inside = places.filter((v) => v >= low && v <= high);
      if (inside.length > 2) return inside;
    }
    return ticks(low, high, 4);
  }

  function drawChart() {
    chart.querySelectorAll("svg").forEach((old) => old.remove());
    points = [];
    quantity = document.querySelector("input[name=quantity]:checked").value;
    const shown = finite.filter((row) => document.querySelector(`input[name=level][value="${row.level}"]`).checked);
    if (!shown.length) return;
    const width = Math.max(320, chart.clientWidth);
    const svg = add("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" }, chart);
    const errors = shown.map((row) => row.val_rel_l2);
    if (finest.checked) errors.push(...shown.map((row) => row.val_finest_rel_l2));
    const low = Math.min(...errors) / 1.15, high = Math.max(...errors) * 1.15;
    const xs = shown.map((row) => row[quantity]);
    const first = Math.min(...xs), last = Math.max(...xs, first + 1e-9);
    const X = (v) => LEFT + ((v - first) / (last - first)) * (width - LEFT - RIGHT);
    const Y = (v) => TOP + (Math.log(high / v) / Math.log(high / low)) * (HEIGHT - TOP - BOTTOM);
    const bottom = HEIGHT - BOTTOM;
    for (const t of ticks(first, last, width > 600 ? 8 : 4)) {
      if (quantity === "epochs" && !Number.isInteger(t)) continue;
      add("line", { x1: X(t), x2: X(t), y1: TOP, y2: bottom, class: "grid" }, svg);
      add("text", { x: X(t), y: bottom + 18, "text-anchor": "middle" }, svg, short(t));
    }
    for (const t of logTicks(low, high)) {
      add("line", { x1: LEFT, x2: width - RIGHT, y1: Y(t), y2: Y(t), class: "grid" }, svg);
      add("text", { x: LEFT - 8, y: Y(t) + 4, "text-anchor": "end" }, svg, short(t));
    }
    add("line", { x1: LEFT, x2: width - RIGHT, y1: bottom, y2: bottom, class: "axis" }, svg);
    add("line", { x1: LEFT, x2: LEFT, y1: TOP, y2: bottom, class: "axis" }, svg);
    const below = { x: (LEFT + width - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle", id: "x-label" };
    add("text", below, svg, data.quantities[quantity]);
    const beside = { transform: `translate(16 ${(TOP + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" };
    add("text", beside, svg, "validation error (mean relative L2)");
    for (const stage of new Set(shown.map((row) => row.stage))) {
      drawStage(svg, shown.filter((row) => row.stage === stage), X, Y);
    }
    svg.addEventListener("mousemove", (event) => hover(event, svg));
    svg.addEventListener("mouseleave", () => { tip.hidden = true; });
  }

  function drawStage(svg, rows, X, Y) {
    const level = rows[0].level, colour = data.colours[level % data.colours.length];
    const common = { fill: "none", stroke: colour, "data-level": level };
    const draw = (key, style) => {
      const line = rows.map((r) => `${X(r[quantity])} ${Y(r[key])}`);
      add("path", { ...common, ...style, d: `M${line.join("L")}` }, svg);
    };
    const dotted = { class: "finest", "stroke-dasharray": "2 4", "stroke-width": 1.5 };
    if (finest.checked) draw("val_finest_rel_l2", dotted);
    draw("val_rel_l2", { class: "level", "stroke-width": 2 });
    for (const row of rows) {
      const x = X(row[quantity]), y = Y(row.val_rel_l2);
      add("circle", { cx: x, cy: y, r: 3, fill: colour, "data-level": level }, svg);
      points.push({ row, x, y });
    }
  }

  function hover(event, svg) {
    const box = svg.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    const away = (point) => Math.hypot(point.x - x, point.y - y);
    const best = points.reduce((one, other) => (away(other) < away(one) ? other : one)), row = best.row;
    tip.hidden = away(best) > 40;
    if (tip.hidden) return;
    tip.textContent = [
      `level ${row.level}, ${row.grid}, epoch ${row.epoch}`,
      `error ${short(row.val_rel_l2)}, on the finest grid ${short(row.val_finest_rel_l2)}`,
      `${short(row.seconds)} s, ${short(row.work_units)} work units`,
      row.learning_rate === null ? "on entering the level" : `learning rate ${short(row.learning_rate)}`,
    ].join("\n");
    tip.style.top = `${best.y + 10}px`;
    tip.style.left = `${Math.min(best.x + 14, box.width - tip.offsetWidth - 4)}px`;
  }

  document.querySelectorAll(".controls input").forEach((input) => input.addEventListener("change", drawChart));
  window.addEventListener("resize", drawChart);
  drawChart();

  // Predictions: fields as images, with the value under the pointer.

  const panels = document.getElementById("panels");
  if (!panels) return;
  const chooser = document.getElementById("chooser"), reading = document.getElementById("reading");
  let current = 0;

  function decode(panel) {
    const bytes = Uint8Array.from(atob(panel.data), (c) => c.charCodeAt(0));
    const raw = new Uint16Array(bytes.buffer);
    const span = (panel.high - panel.low) / 65535;
    return (i, j) => panel.low + span * raw[i * panel.height + j];
  }

  // viridis, RdBu and PuOr of matplotlib at 17 places, linear in between
  const MAPS = {
    unsigned: "44015448186a472d7b4240863b528b33638d2c728e26828e21918c1fa08828ae803fbc735ec96284d44baddc30d8e219fde725",
    signed: "0530611752902a71b23f8ec06bacd19bc9e0c2ddece0ecf3f7f6f6fbe5d8fbccb4f5aa89e48066d05548ba2832930e2667001f",
    error: "2d004b4518715f3a917b6aa89990bfb7b1d5cfcfe5e4e5f0f7f7f6fce8cdfed59ffdbc6bee9b39d97b12bd61099e4c077f3b08",
  };

  function colour(map, part) {
    const place = 16 * Math.max(0, Math.min(1, part)), index = Math.min(15, Math.floor(place));
    const value = (k) => parseInt(MAPS[map].substr(2 * k, 2), 16);
    return [0, 1, 2].map((k) => {
      const low = value(3 * index + k), high = value(3 * index + 3 + k);
      return Math.round(low + (high - low) * (place - index));
    });
  }

  function paint(canvas, width, height, pixel) {
    canvas.width = width; canvas.height = height;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        image.data.set([...pixel(x, y), 255], 4 * (y * width + x));
      }
    }
    context.putImageData(image, 0, 0);
  }

  function show(index) {
    current = (index + data.frames.length) % data.frames.length;
    chooser.value = String(current);
    panels.textContent = "";
    reading.textContent = "";
    const frame = data.frames[current];
    const values = frame.panels.map(decode);
    frame.panels.forEach((panel, k) => {
      const box = add("div", { class: "panel" }, panels);
      add("h3", {}, box, panel.name);
      const canvas = add("canvas", { class: "field" }, box);
      const [from, to] = panel.limits, span = to - from || 1;
      paint(canvas, panel.width, panel.height, (x, y) =>
        colour(panel.map, (values[k](x, panel.height - 1 - y) - from) / span));
      paint(add("canvas", { class: "bar" }, box), 256, 1, (x) => colour(panel.map, x / 255));
      const ends = add("div", { class: "ends" }, box);
      for (const limit of panel.limits) add("span", {}, ends, short(limit));
      canvas.addEventListener("mousemove", (event) => {
        const area = canvas.getBoundingClientRect();
        const i = Math.floor(((event.clientX - area.left) / area.width) * panel.width);
        const j = Math.floor((1 - (event.clientY - area.top) / area.height) * panel.height);
        if (i < 0 || j < 0 || i >= panel.width || j >= panel.height) return;
        const parts = frame.panels.map((p, m) => `${p.name}: ${short(values[m](i, j))}`);
        reading.textContent = `point (${i * panel.step}, ${j * panel.step})   ${parts.join("   ")}`;
      });
    });
  }

  data.frames.forEach((frame, value) => add("option", { value }, chooser, frame.title));
  chooser.addEventListener("change", () => show(Number(chooser.value)));
  document.getElementById("previous").addEventListener("click", () => show(current - 1));
  document.getElementById("next").addEventListener("click", () => show(current + 1));
  show(0);
})();
