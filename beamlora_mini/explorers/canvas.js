// Drawing on a canvas: maps in blue and orange, curves, bars.

import { shown } from "./look.js";

/** A canvas that is as sharp as the screen: its context, and its width and height in CSS pixels. */
export function sharp(canvas, height) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth || 300;
  const tall = height ?? width;
  const [w, t] = [Math.round(width * scale), Math.round(tall * scale)];
  if (canvas.width !== w || canvas.height !== t) {
    Object.assign(canvas, { width: w, height: t });
    if (height) canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, tall);
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "alphabetic";
  return [context, width, tall];
}

export function line(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

const small = new Map(); // a little canvas for each shape, to be stretched

/** A matrix as a map: blue below zero, orange above, paper at zero; reach: the value of the full colour. */
export function heat(canvas, matrix, reach, { paper, smooth = false, dots = [] }) {
  const [rows, columns] = [matrix.length, matrix[0].length];
  const key = `${rows} ${columns}`;
  if (!small.has(key))
    small.set(key, Object.assign(document.createElement("canvas"), { width: columns, height: rows }));
  const little = small.get(key).getContext("2d");
  const image = little.createImageData(columns, rows);
  const base = rgb(paper);
  let at = 0;
  for (const row of matrix) {
    for (let j = 0; j < columns; j++) {
      const share = Math.max(-1, Math.min(1, reach > 0 ? row[j] / reach : 0)) || 0;
      const full = share > 0 ? ORANGE : BLUE;
      for (let k = 0; k < 3; k++) image.data[at++] = base[k] + (full[k] - base[k]) * Math.abs(share);
      image.data[at++] = 255;
    }
  }
  little.putImageData(image, 0, 0);
  const [context, w, tall] = sharp(canvas);
  context.imageSmoothingEnabled = smooth;
  context.drawImage(small.get(key), 0, 0, w, tall);
  for (const { x, y, up } of dots) example(context, ((x + 1) / 2) * w, ((1 - y) / 2) * tall, up);
}
export const [ORANGE, BLUE] = [
  [217, 72, 15],
  [37, 99, 235],
];
/** A colour `share` of the way from the paper to the full one. */
export function between(paper, full, share) {
  return `rgb(${rgb(paper)
    .map((x, k) => Math.round(x + (full[k] - x) * share))
    .join()})`;
}
const rgb = (paper) => [1, 3, 5].map((i) => parseInt(paper.slice(i, i + 2), 16));

/** An example: a full dot inside the pattern, a ring outside. */
function example(context, x, y, up) {
  context.beginPath();
  context.arc(x, y, 3, 0, 2 * Math.PI);
  context.fillStyle = up ? "#b3390b" : "#ffffff";
  context.strokeStyle = up ? "#ffffff" : "#1d4fc4";
  context.lineWidth = 1.3;
  context.fill();
  context.stroke();
}

/** The axis of steps below a picture that is `left` from the left edge. */
export function stepAxis(context, { left, right, y, steps, soft }) {
  context.fillStyle = soft;
  for (let k = 0; k <= 4; k++) {
    context.textAlign = k === 0 && left < 10 ? "left" : k === 4 ? "right" : "center";
    const step = Math.round((k / 4) * steps);
    context.fillText(k === 4 && right - left > 330 ? `${step} steps` : step, left + (k / 4) * (right - left), y);
  }
}

/** Curves {values, xs (their steps), colour, dash, faint} over the steps, from 0 to `top`, with its axes. */
export function curves(context, w, tall, { lines, steps, top, soft, write }) {
  const [left, right, bottom] = [40, w - 6, tall - 20];
  const x = (n) => left + (n / steps) * (right - left);
  const y = (value) => bottom - (Math.min(value, top) / top) * (bottom - 8);
  context.textAlign = "right";
  for (const value of [0, top / 2, top]) {
    context.strokeStyle = context.fillStyle = soft;
    context.globalAlpha = 0.25;
    line(context, left, y(value), right, y(value));
    context.globalAlpha = 1;
    context.fillText(write(value), left - 5, y(value) + 4);
  }
  stepAxis(context, { left, right, y: bottom + 14, steps, soft });
  context.lineWidth = 2.2;
  for (const { values, xs, colour, dash, faint = false } of lines) {
    context.strokeStyle = colour;
    context.globalAlpha = faint ? 0.2 : 1;
    context.setLineDash(dash);
    context.beginPath();
    values.forEach((value, n) => Number.isFinite(value) && context.lineTo(x(xs ? xs[n] : n), y(value)));
    context.stroke();
  }
  context.globalAlpha = 1;
  context.setLineDash([]);
}

/** Groups of bars, a group for each place: sets of {values, colour}. The axis reaches at least to `least`. */
export function bars(context, w, tall, { sets, count, least, soft }) {
  const top = Math.max(least, ...sets.map(({ values }) => values[0] || 0));
  const slot = (w - 30) / count;
  context.fillStyle = soft;
  context.textAlign = "right";
  for (const value of [0, top / 2, top])
    context.fillText(shown(value), 26, tall - 20 - (value / top) * (tall - 26) + (value ? 8 : 0));
  const wide = (slot * 0.72) / sets.length;
  context.textAlign = "center";
  for (let k = 0; k < count; k++) {
    sets.forEach(({ colour, values }, j) => {
      const high = ((values[k] || 0) / top) * (tall - 26);
      context.fillStyle = colour;
      context.fillRect(30 + k * slot + slot * 0.14 + j * wide, tall - 20 - high, Math.max(1, wide - 1.5), high);
    });
    context.fillStyle = soft;
    context.fillText(k + 1, 30 + (k + 0.5) * slot, tall - 5);
  }
}
