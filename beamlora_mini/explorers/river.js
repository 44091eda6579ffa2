// The rank river: what became of every rank of a module. plots/river.py draws the same from a RankHistory.

// Paul Tol's bright scheme and an indigo, as in plots/river.py: safe for colour-blind readers.
const FOUNDERS = ["#4477AA", "#EE6677", "#CCBB44", "#228833", "#66CCEE", "#AA3377", "#BBBBBB", "#6B5FB5"];
const rgbOf = (founder) => {
  const dim = Math.floor(founder / FOUNDERS.length) % 2 ? 0.6 : 1;
  return [1, 3, 5].map((i) => Math.round(dim * parseInt(FOUNDERS[founder % FOUNDERS.length].slice(i, i + 2), 16)));
};
/** The colour of a first rank, one of eight; the next eight have the same, darker. */
export const colourOf = (founder) => `rgb(${rgbOf(founder).join()})`;
/** Black or white, whichever is read better on a founder's colour. */
export function inkOn(founder) {
  const [r, g, b] = rgbOf(founder).map((x) =>
    x / 255 <= 0.04045 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4,
  );
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.19 ? "#101418" : "#ffffff";
}

const newLife = (slot, founder, born, parent = null) => ({ slot, founder, born, died: null, parent, children: [] });

/**
 * Lives of a module's ranks from top to bottom, a copy below its source: {slot, founder, born, died, parent, children}, and who
 * sits in which slot in each era (between events). events: of this module, in order; fresh and grown ranks found a line.
 */
export function livesOf(ranks, events) {
  const lives = Array.from({ length: ranks }, (_, slot) => newLife(slot, slot, 0));
  let founders = ranks;
  let now = lives.slice();
  const eras = [{ from: 0, seats: now }];
  const steps = [...new Set(events.map(({ step }) => step))];
  for (const step of steps) {
    const before = now;
    now = before.slice();
    for (const { kind, slot, source } of events.filter((event) => event.step === step)) {
      if (kind === "expand") {
        const parent = source === null ? null : before[source];
        before[slot].died = step;
        const child = newLife(slot, parent?.founder ?? founders++, step, parent);
        parent?.children.push(child);
        lives.splice(lives.indexOf(parent ?? before[slot]) + 1, 0, child);
        now[slot] = child;
      } else if (kind === "prune" || kind === "revive") {
        now[slot].died = kind === "prune" ? step : null;
      } else if (kind === "grow") {
        const child = newLife(slot, slot, step);
        lives.push(child);
        now[slot] = child;
      }
    }
    eras.push({ from: step, seats: now });
  }
  return { lives, eras };
}

/** How many first ranks have descendants. */
export const familiesLeft = ({ eras }) => new Set(alive(eras).map(({ founder }) => founder)).size;
const alive = (eras) => eras.at(-1).seats.filter(({ died }) => died === null);

/**
 * Points in time and the width of each life at them. rows: {x, values (r,)} of every recorded step, values as
 * they are after its events; before[step]: what they were until the event of that step. Every point sums to 1.
 */
export function widthsOf({ lives, eras }, rows, before) {
  const place = new Map(lives.map((life, k) => [life, k]));
  const points = [];
  const add = (x, values, seats) => {
    const widths = new Float64Array(lives.length);
    let total = 0;
    values.forEach((value) => (total += value));
    values.forEach((value, slot) => {
      if (seats[slot]) widths[place.get(seats[slot])] = total > 0 ? value / total : 1 / values.length;
    });
    points.push({ x, widths });
  };
  let era = 0;
  rows.forEach(({ x, values }, k) => {
    let after = 0;
    while (eras[era + 1] && eras[era + 1].from <= x) {
      const { from } = eras[era + 1];
      add(from - 0.6, before[from] ?? rows[Math.max(0, k - 1)].values, eras[era].seats);
      era += 1;
      after = from === x ? 0.4 : 0;
    }
    add(x + after, values, eras[era].seats);
  });
  return points;
}

/** The lives that a life descends from and those that descend from it, itself included. */
export function lineOf(life) {
  const line = new Set();
  for (let up = life; up; up = up.parent) line.add(up);
  const down = (of) => of.children.forEach((child) => (line.add(child), down(child)));
  down(life);
  return line;
}

/** Draws the river on a canvas context of width w and height h; steps: the whole length of the axis; lit: lives that stand out;
 * paper, ink: colours. */
export function drawRiver(context, w, h, river, points, { steps, paper, ink, lit = null }) {
  const { lives } = river;
  const x = (n) => (n / steps) * w;
  const tops = points.map(({ widths }) => {
    let at = 0;
    return Float64Array.from([0, ...Array.from(widths, (width) => (at += width))], (edge) => edge * h);
  });
  lives.forEach((life, k) => {
    const there = points.map((_, i) => i).filter((i) => points[i].widths[k] > 0);
    if (!there.length) return;
    const [from, to] = [there[0], Math.min(points.length - 1, there.at(-1))];
    context.beginPath();
    for (let i = from; i <= to; i++) context.lineTo(x(points[i].x), tops[i][k]);
    for (let i = to; i >= from; i--) context.lineTo(x(points[i].x), tops[i][k + 1]);
    context.closePath();
    context.globalAlpha = (life.died === null ? 1 : 0.4) * (lit && !lit.has(life) ? 0.25 : 1);
    context.fillStyle = colourOf(life.founder);
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = paper;
    context.lineWidth = 1.5;
    context.stroke();
    const wide = there.filter((i) => points[i].widths[k] * h > 13);
    if (!wide.length || x(points[wide.at(-1)].x) - x(points[wide[0]].x) < 14) return;
    const at = x(points[wide[0]].x) + 10;
    const i = Math.max(
      1,
      points.findIndex((point) => x(point.x) >= at),
    );
    const share = (at - x(points[i - 1].x)) / (x(points[i].x) - x(points[i - 1].x) || 1);
    const middle = [i - 1, i].map((j) => (tops[j][k] + tops[j][k + 1]) / 2);
    context.font = "600 11px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = life.died === null ? inkOn(life.founder) : ink;
    context.fillText(life.founder, at, middle[0] + share * (middle[1] - middle[0]));
  });
}
