// Laboratory: which directions of a weight PiSSA and MiLoRA take for the adapter, and what they leave.

import { heat } from "./canvas.js";
import { percent } from "./look.js";
import { numbersOf } from "./numbers.js";

/** The sum of the directions from `first` to `last`, of the rows and columns that are shown. */
function part({ U, S, V }, first, last) {
  return U.map((u) =>
    V.map((v) => {
      let sum = 0;
      for (let k = first; k < last; k++) sum += u[k] * S[k] * v[k];
      return sum;
    }),
  );
}
function unpack({ U, S, V, shape, name }) {
  const s = numbersOf(S);
  const rows = (text) => {
    const flat = numbersOf(text);
    return Array.from({ length: flat.length / s.length }, (_, i) => flat.subarray(i * s.length, (i + 1) * s.length));
  };
  return { U: rows(U), S: s, V: rows(V), shape, name };
}

export const LAB = {
  title: "Spectrum",
  idea: "what a start takes out of a weight",
  question:
    "Every weight is a sum of directions, the strong ones first. PiSSA trains the first r, MiLoRA the last r, and what is left is frozen. How much of the weight does an adapter of rank r hold?",
  answer: ({ r, method, share, even, weights }) =>
    `With r = ${r}, ${method} holds ${percent(share)} of the sum of squares of all entries, in ${percent(weights)} of the numbers. Were all directions equally strong, it would hold ${percent(even)}.${weights >= 1 ? " An adapter this large saves nothing." : ""}`,
  defaults: { r: 8, method: "PiSSA", most: 64 },
  controls: [
    {
      name: "method",
      kind: "chips",
      values: ["PiSSA", "MiLoRA"],
      help: "PiSSA takes the strongest directions, MiLoRA the weakest.",
    },
    {
      name: "r",
      label: "rank r",
      values: ({ most }) => [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64].filter((r) => r <= most),
      help: "So many directions go to the adapter.",
    },
  ],
  compute({ r, method }, data) {
    const of = (this.cache ??= unpack(data));
    const count = of.S.length;
    if (!["PiSSA", "MiLoRA"].includes(method))
      throw new RangeError(`method=${JSON.stringify(method)}: allowed is PiSSA or MiLoRA`);
    if (!(Number.isInteger(r) && r >= 1 && r <= count))
      throw new RangeError(`r=${r}: allowed is an integer from 1 to ${count}`);
    const [first, last] = method === "PiSSA" ? [0, r] : [count - r, count];
    const squares = Array.from(of.S, (s) => s * s);
    const sum = (values) => values.reduce((total, x) => total + x, 0);
    const whole = part(of, 0, count);
    const taken = part(of, first, last);
    const [rows, columns] = of.shape;
    return {
      r,
      method,
      first,
      last,
      S: of.S,
      name: of.name,
      whole,
      taken,
      left: whole.map((row, i) => row.map((x, j) => x - taken[i][j])),
      share: sum(squares.slice(first, last)) / sum(squares),
      even: r / count,
      weights: (r * (rows + columns)) / (rows * columns),
    };
  },
  pictures: [
    {
      title: "Singular values",
      tall: 230,
      says: ({ method }) => `orange: what ${method} takes`,
      words: ({ S, first, last, method, name }) =>
        `${S.length} singular values of ${name}, from ${S[0].toFixed(2)} to ${S.at(-1).toFixed(2)}; ${method} takes those from place ${first + 1} to ${last}.`,
      draw(context, w, tall, { S, first, last }, paint) {
        const each = (w - 44) / S.length;
        context.textAlign = "right";
        context.fillStyle = paint.soft;
        for (const value of [0, S[0] / 2, S[0]])
          context.fillText(value.toFixed(1), 36, tall - 22 - (value / S[0]) * (tall - 36) + 4);
        S.forEach((s, k) => {
          const taken = k >= first && k < last;
          context.fillStyle = taken ? paint.b : paint.third;
          context.globalAlpha = taken ? 1 : 0.45;
          const high = (s / S[0]) * (tall - 36);
          context.fillRect(42 + k * each, tall - 22 - high, Math.max(0.6, each - 0.6), high);
        });
        context.globalAlpha = 1;
        context.fillStyle = paint.soft;
        context.textAlign = "center";
        context.fillText("place, the strongest first", 42 + (w - 44) / 2, tall - 6);
      },
    },
    ...[
      ["whole", "W"],
      ["taken", "the adapter's part"],
      ["left", "frozen, what is left"],
    ].map(([name, title]) => ({
      title,
      says: (result) => `its first ${result.whole.length} rows and ${result.whole[0].length} columns`,
      words: (result) =>
        `Map of ${title}: ${percent(name === "whole" ? 1 : name === "taken" ? result.share : 1 - result.share)} of the sum of squares.`,
      draw(context, w, tall, result, paint, canvas) {
        const reach =
          2.5 *
          Math.sqrt(
            result.whole.flat().reduce((sum, x) => sum + x * x, 0) / (result.whole.length * result.whole[0].length),
          );
        heat(canvas, result[name], reach, { paper: paint.paper });
      },
    })),
  ],
  table: ({ S, first, last, share }) => ({
    head: ["part", "places", "share of the sum of squares"],
    rows: [
      ["adapter", `${first + 1} to ${last}`, percent(share)],
      ["frozen", first ? `1 to ${first}` : `${last + 1} to ${S.length}`, percent(1 - share)],
    ],
  }),
  state: ({ S, share, taken, left, first, last }) => ({
    share,
    first,
    last,
    singular_values: Array.from(S),
    taken,
    left,
  }),
};
