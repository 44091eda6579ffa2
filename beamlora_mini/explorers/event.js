// How an event chose who falls: all ranks by weight, the running sum, and where it passes the threshold.

import { line } from "./canvas.js";

/** {values: falling, fell: a boolean each, p, exact} of the pool of an event. */
export function poolOf(record, step, module) {
  const events = record.events.filter((event) => event.step === step && event.kind === "expand");
  const p = events.find(({ threshold }) => threshold !== null)?.threshold ?? null;
  if (record.pools[step]) {
    const { values, fell, exact } = record.pools[step];
    const fallen = new Set(fell);
    return { values, fell: Array.from(values, (_, k) => fallen.has(k)), p, exact, of: "all modules" };
  }
  const { values, exact } = record.until(step);
  const own = record.of(values, module);
  const slots = new Set(events.filter((event) => event.module === module).map(({ slot }) => slot));
  const order = Array.from(own, (_, k) => k).sort((x, y) => own[y] - own[x] || x - y);
  return { values: order.map((k) => own[k]), fell: order.map((k) => slots.has(k)), p, exact, of: "this module" };
}

/** What is said of an event, with the same facts as the picture. */
export function poolInWords(step, { values, fell, p, exact, of }) {
  const count = fell.filter(Boolean).length;
  const how =
    p === null || p > 1
      ? ""
      : ` All ranks by weight, the heaviest first: those from where the running sum passes ${(100 * p).toFixed(p > 0.999 ? 3 : 1)} % of the total on are pruned.`;
  const old = exact ? "" : " The weights until the event were not recorded: these are of the record before it.";
  return `Event at step ${step}: ${count} of the ${values.length} ranks of ${of} fell.${how}${old}`;
}

/** Left the running sum with the threshold; right the weights next to the cut. Fallen ranks are orange, and rings. */
export function drawPool(context, w, tall, { values, fell, p }, paint) {
  const middle = Math.round(w * 0.46);
  const bottom = tall - 20;
  const total = values.reduce((sum, x) => sum + x, 0) || 1;
  const x = (k) => 46 + (k / values.length) * (middle - 66);
  const y = (share) => bottom - share * (bottom - 10);
  context.fillStyle = paint.soft;
  context.textAlign = "right";
  for (const share of [0, 0.5, 1]) context.fillText(`${100 * share} %`, 40, y(share) + 4);
  context.textAlign = "center";
  context.fillText("ranks, the heaviest first", x(values.length / 2), tall - 5, middle - 60);
  context.lineWidth = 2.2;
  let sum = 0;
  let before = [x(0), y(0)];
  values.forEach((value, k) => {
    sum += value / total;
    const next = [x(k + 1), y(sum)];
    context.strokeStyle = fell[k] ? paint.b : paint.a;
    line(context, ...before, ...next);
    before = next;
  });
  if (p !== null && p <= 1) {
    context.strokeStyle = paint.soft;
    context.lineWidth = 1;
    context.setLineDash([4, 3]);
    line(context, 46, y(p), middle - 20, y(p));
    context.setLineDash([]);
    context.textAlign = "left";
    context.fillText(`p = ${p.toFixed(p > 0.999 ? 5 : 3)}`, 50, y(p) - 4 < 12 ? y(p) + 13 : y(p) - 4);
  }
  drawCut(context, middle, w, bottom, { values, fell }, paint);
}
function drawCut(context, left, w, bottom, { values, fell }, paint) {
  const first = fell.indexOf(true);
  const from = Math.max(0, Math.min((first < 0 ? values.length : first) - 30, values.length - 90));
  const shown = values.slice(from, from + 90);
  const [most, least] = [Math.max(...shown), Math.min(...shown)];
  const y = (value) => bottom - 6 - ((value - least) / (most - least || 1)) * (bottom - 20);
  const start = left + 34;
  const each = (w - start - 8) / shown.length;
  context.fillStyle = paint.soft;
  context.textAlign = "right";
  for (const value of most > least ? [most, least] : [most])
    context.fillText(value.toFixed(2), start - 8, y(value) + 4);
  shown.forEach((value, k) => {
    const gone = fell[from + k];
    context.beginPath();
    context.arc(start + (k + 0.5) * each, y(value), 3, 0, 2 * Math.PI);
    context.fillStyle = context.strokeStyle = gone ? paint.b : paint.a;
    context.lineWidth = 1.5;
    if (gone) context.stroke();
    else context.fill();
  });
  context.fillStyle = paint.soft;
  context.textAlign = "center";
  context.fillText(
    shown.length < values.length
      ? `weights of ranks ${from + 1} to ${from + shown.length}; rings fell`
      : "their weights; rings fell",
    (left + w) / 2,
    bottom + 15,
    w - left - 10,
  );
}
