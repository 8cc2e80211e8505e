// Line charts: hover, zoom, smoothing, a logarithmic axis, and what is shown as SVG, PNG or CSV.
import { cell, el, fill, keep, number } from "./dom.js";
import { word } from "./words.js";

const WIDTH = 420, HEIGHT = 230, LEFT = 54, RIGHT = 10, TOP = 8, BOTTOM = 26;
const MOST = 600;

// Exponential smoothing without the pull towards the first value (Kingma and Ba 2015, section 3).
export function smoothed(points, weight) {
  let sum = 0, share = 0;
  return points.map(([x, y]) => {
    sum = weight * sum + (1 - weight) * y;
    share = weight * share + (1 - weight);
    return [x, sum / share];
  });
}

// At most so many points, the means of stretches.
export function thinned(points, most = MOST) {
  if (points.length <= most) return points;
  const size = points.length / most;
  return Array.from({ length: most }, (_, place) => {
    const part = points.slice(Math.round(place * size), Math.round((place + 1) * size));
    return [part.reduce((sum, [x]) => sum + x, 0) / part.length, part.reduce((sum, [, y]) => sum + y, 0) / part.length];
  });
}

// Round numbers between two, about so many.
export function ticks(low, high, count = 5) {
  if (!(high > low)) return [low];
  const raw = (high - low) / count, size = 10 ** Math.floor(Math.log10(raw));
  const unit = [1, 2, 5, 10].find((one) => one * size >= raw) * size;
  const found = [];
  for (let place = Math.ceil(low / unit); place * unit <= high + unit * 1e-9; place += 1) found.push(Number((place * unit).toPrecision(12)));
  return found;
}

// A chart. `lines` are { name, colour, points }; `how` has smoothing, log, and x, the name of the axis. It is drawn anew by draw(lines, how).
export class Plot {
  constructor(title) {
    this.title = title;
    this.view = null;
    this.drawing = el("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", tabindex: "0", "aria-label": title });
    this.tip = el("p", { class: "tip" });
    this.legend = el("div", { class: "legend" });
    this.tools = el("div", { class: "tools" },
      el("button", { type: "button", class: "small", onclick: () => { this.view = null; this.redraw(); } }, word("reset")),
      ...["SVG", "PNG", "CSV"].map((kind) => el("button", { type: "button", class: "small", onclick: () => this.save(kind) }, kind)));
    this.node = el("figure", { class: "chart" }, el("figcaption", {}, title), this.legend, this.drawing, this.tip, this.tools);
    this.drawing.addEventListener("pointermove", (event) => this.hover(event));
    this.drawing.addEventListener("pointerleave", () => { this.tip.textContent = this.last; this.cursor?.setAttribute("visibility", "hidden"); });
    this.drawing.addEventListener("pointerdown", (event) => { this.from = this.place(event); this.drawing.setPointerCapture(event.pointerId); });
    this.drawing.addEventListener("pointerup", (event) => this.zoom(this.place(event)));
    this.drawing.addEventListener("dblclick", () => { this.view = null; this.redraw(); });
    this.drawing.addEventListener("keydown", (event) => this.key(event));
  }

  draw(lines, how) {
    [this.lines, this.how] = [lines, how];
    this.redraw();
  }

  // The lines as they are shown: the part in view, without what a logarithm does not have.
  get visible() {
    return this.lines.map((line) => {
      const usable = line.points.filter(([x, y]) => (!this.view || (x >= this.view[0] && x <= this.view[1])) && (!this.how.log || y > 0));
      return { ...line, raw: thinned(usable), points: thinned(this.how.smoothing ? smoothed(usable, this.how.smoothing) : usable) };
    }).filter((line) => line.points.length);
  }

  redraw() {
    const lines = this.visible, all = lines.flatMap((line) => line.raw);
    fill(this.legend, lines.length > 1 ? lines.map((line) => el("span", { colour: line.colour }, el("i"), line.name)) : []);
    if (!all.length) { fill(this.drawing); this.last = this.tip.textContent = ""; return; }
    const level = (y) => this.how.log ? Math.log10(y) : y;
    let [x0, x1] = [Math.min(...all.map(([x]) => x)), Math.max(...all.map(([x]) => x))];
    let [y0, y1] = [Math.min(...all.map(([, y]) => level(y))), Math.max(...all.map(([, y]) => level(y)))];
    if (x0 === x1) [x0, x1] = [x0 - 0.5, x1 + 0.5];
    if (y0 === y1) [y0, y1] = [y0 - (Math.abs(y0) || 1) * 0.1, y1 + (Math.abs(y1) || 1) * 0.1];
    const pad = (y1 - y0) * 0.05;
    [y0, y1] = [y0 - pad, y1 + pad];
    this.frame = { x0, x1 };
    const X = (x) => LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT), Y = (y) => HEIGHT - BOTTOM - (level(y) - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);
    this.at = { X, Y };
    const path = (points) => points.map(([x, y], place) => `${place ? "L" : "M"}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`).join("");
    const heights = this.how.log ? [...new Set([...ticks(y0, y1, 4).map((one) => Number((10 ** one).toPrecision(2)))])] : ticks(y0, y1, 4);
    fill(this.drawing,
      heights.filter((y) => Y(y) > TOP && Y(y) < HEIGHT - BOTTOM + 1).map((y) => [
        el("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: Y(y), y2: Y(y) }),
        el("text", { class: "tick", x: LEFT - 6, y: Y(y) + 4, "text-anchor": "end" }, number(y))]),
      ticks(x0, x1, 5).map((x) => el("text", { class: "tick", x: X(x), y: HEIGHT - 8, "text-anchor": "middle" }, number(x))),
      lines.map((line) => [
        this.how.smoothing ? el("path", { class: "line faint", colour: line.colour, d: path(line.raw) }) : null,
        line.points.length > 1 ? el("path", { class: "line", colour: line.colour, d: path(line.points) })
          : el("circle", { class: "dot", colour: line.colour, cx: X(line.points[0][0]), cy: Y(line.points[0][1]), r: 3 })]),
      this.cursor = el("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" }),
      this.band = el("rect", { class: "band", y: TOP, height: HEIGHT - TOP - BOTTOM, visibility: "hidden" }));
    this.last = lines.slice(0, 6).map((line) => `${lines.length > 1 ? `${line.name} ` : ""}${number(line.points.at(-1)[1])}`).join(" · ");
    this.tip.textContent = this.last;
    this.drawing.setAttribute("aria-label", `${this.title}: ${this.last}`);
  }

  // A pointer's place along the axis.
  place(event) {
    const box = this.drawing.getBoundingClientRect(), { x0, x1 } = this.frame || { x0: 0, x1: 1 };
    const share = ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT);
    return x0 + Math.min(1, Math.max(0, share)) * (x1 - x0);
  }

  hover(event) {
    const lines = this.lines ? this.visible : [];
    if (!lines.length) return;
    const x = this.place(event);
    const near = lines.map((line) => [line, line.points.reduce((best, point) => Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best)]);
    const at = near[0][1][0];
    for (const side of ["x1", "x2"]) this.cursor.setAttribute(side, this.at.X(at));
    this.cursor.setAttribute("visibility", "visible");
    if (this.from !== undefined && event.buttons) {
      const [a, b] = [this.at.X(Math.min(this.from, x)), this.at.X(Math.max(this.from, x))];
      this.band.setAttribute("x", a);
      this.band.setAttribute("width", b - a);
      this.band.setAttribute("visibility", "visible");
    }
    this.tip.textContent = `${this.how.x} ${number(at)}: ${near.slice(0, 6).map(([line, point]) => `${lines.length > 1 ? `${line.name} ` : ""}${number(point[1])}`).join(" · ")}`;
  }

  zoom(to) {
    const from = this.from;
    this.from = undefined;
    if (from === undefined || !this.frame) return;
    if (Math.abs(to - from) > (this.frame.x1 - this.frame.x0) * 0.02) this.view = [Math.min(from, to), Math.max(from, to)];
    this.redraw();
  }

  key(event) {
    if (!this.frame || !["+", "=", "-", "0", "ArrowLeft", "ArrowRight"].includes(event.key)) return;
    event.preventDefault();
    const { x0, x1 } = this.frame, middle = (x0 + x1) / 2, width = x1 - x0;
    if (event.key === "0") this.view = null;
    else if (event.key === "+" || event.key === "=") this.view = [middle - width / 4, middle + width / 4];
    else if (event.key === "-") this.view = [middle - width, middle + width];
    else { const move = (event.key === "ArrowLeft" ? -1 : 1) * width / 4; this.view = [x0 + move, x1 + move]; }
    this.redraw();
  }

  get svg() {
    const copy = this.drawing.cloneNode(true), style = getComputedStyle(this.drawing);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("width", WIDTH * 2);
    copy.setAttribute("height", HEIGHT * 2);
    const from = [...this.drawing.querySelectorAll("*")], to = [...copy.querySelectorAll("*")];
    from.forEach((node, place) => {
      const seen = getComputedStyle(node);
      for (const name of ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-family"]) to[place].setAttribute(name, seen.getPropertyValue(name));
      to[place].removeAttribute("style");
    });
    copy.prepend(el("rect", { width: WIDTH, height: HEIGHT, fill: style.getPropertyValue("--card") }));
    return new XMLSerializer().serializeToString(copy);
  }

  save(kind) {
    const name = this.title.replace(/[^\p{L}\p{N}]+/gu, "-");
    if (kind === "CSV") {
      const rows = [[this.how.x, "line", "value"], ...this.lines.flatMap((line) => line.points.map(([x, y]) => [x, line.name, y]))];
      keep(`${name}.csv`, rows.map((row) => row.map(cell).join(",")).join("\n") + "\n", "text/csv");
    } else if (kind === "SVG") {
      keep(`${name}.svg`, this.svg, "image/svg+xml");
    } else {
      const picture = new Image();
      picture.onload = () => {
        const canvas = el("canvas", { width: WIDTH * 2, height: HEIGHT * 2 });
        canvas.getContext("2d").drawImage(picture, 0, 0, WIDTH * 2, HEIGHT * 2);
        canvas.toBlob((blob) => keep(`${name}.png`, blob), "image/png");
      };
      picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(this.svg)}`;
    }
  }
}

// The controls over a group of charts; calls `again` with what is chosen.
export function controls(how, axes, again) {
  const change = (name, value) => { how[name] = value; again(); };
  const strength = el("output", {}, String(how.smoothing));
  return el("div", { class: "controls" },
    el("label", {}, word("smoothing"), " ", el("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: how.smoothing,
      oninput: (event) => { strength.textContent = event.target.value; change("smoothing", Number(event.target.value)); } }), " ", strength),
    el("label", {}, el("input", { type: "checkbox", checked: how.log, onchange: (event) => change("log", event.target.checked) }), " ", word("log_axis")),
    axes.length > 1 ? el("label", {}, word("axis"), " ", el("select", { onchange: (event) => change("axis", event.target.value) },
      axes.map((name) => el("option", { value: name, selected: how.axis === name }, word(name))))) : null,
    el("small", {}, word("drag")));
}
