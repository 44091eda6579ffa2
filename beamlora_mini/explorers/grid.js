// The map of all modules: a strip of cells for each, a cell for each rank.

import { BLUE, ORANGE, between, sharp } from "./canvas.js";

const SORTS = {
  place: null,
  "most uneven first": (record, place) => (m) => -spread(shares(record.at(place, m))),
  "most replaced first": (record) => (m) => -record.eventsOf(m).filter(({ kind }) => kind === "expand").length,
};
export const SORT_NAMES = [...Object.keys(SORTS), "kind"];

/** Importances as multiples of an even share. */
export function shares(values) {
  const total = values.reduce((sum, x) => sum + x, 0);
  return Array.from(values, (x) => (total > 0 ? (x * values.length) / total : 1));
}
const spread = (of) => Math.max(...of) - Math.min(...of);

/** Modules (their places in the record) that pass the filters, in order. */
export function ordered(record, place, { sort, kind, block }) {
  const all = record.modules
    .map((_, m) => m)
    .filter((m) => {
      const own = record.modules[m];
      return (kind === "all" || own.kind === kind) && (block === "all" || String(own.block) === String(block));
    });
  if (sort === "kind") {
    const kinds = [...new Set(record.modules.map((own) => own.kind))];
    return all.sort((x, y) => kinds.indexOf(record.modules[x].kind) - kinds.indexOf(record.modules[y].kind) || x - y);
  }
  const key = SORTS[sort]?.(record, place);
  if (!key) return all;
  const keys = new Map(all.map((m) => [m, key(m)]));
  return all.sort((x, y) => keys.get(x) - keys.get(y) || x - y);
}

export class Grid {
  constructor() {
    this.cells = [];
  }
  /** How far from an even share the full colour is: nearly all ranks of the last record lie within. */
  measure(record) {
    if (this.measured === record.steps.length) return;
    this.measured = record.steps.length;
    const last = record.modules.flatMap((_, m) =>
      shares(record.at(record.steps.length - 1, m)).map((w) => Math.abs(w - 1)),
    );
    last.sort((x, y) => x - y);
    this.reach = Math.max(0.02, last[Math.floor(0.98 * (last.length - 1))]); // the deviation of the full colour
  }

  /** modules: those to show, in order; table: a column for each kind and a row for each block. */
  draw(canvas, record, { modules, table, place, chosen, fresh, paint }) {
    this.measure(record);
    const wide = canvas.clientWidth || 600;
    const kinds = [...new Set(modules.map((m) => record.modules[m].kind))];
    const blocks = [...new Set(modules.map((m) => record.modules[m].block))];
    const columns = table ? kinds.length : Math.max(1, Math.min(modules.length, Math.floor(wide / 150)));
    const rows = table ? blocks.length : Math.ceil(modules.length / columns);
    const high = Math.max(9, Math.min(18, 420 / Math.max(1, rows)));
    const [head, margin, label] = [table ? 16 : 0, table ? 26 : 0, table ? 0 : 78];
    const [context, w] = sharp(canvas, Math.ceil(head + rows * high) + 2);
    const slot = (w - margin) / columns;
    const cell = (slot - label - 8) / record.ranks;
    context.fillStyle = paint.soft;
    if (table) {
      kinds.forEach((kind, k) => context.fillText(kind, margin + k * slot, 11, slot - 6));
      blocks.forEach((block, k) => (rows < 12 || k % 2 === 0) && context.fillText(block, 0, head + (k + 0.8) * high));
    }
    this.cells = modules.map((m, k) => {
      const { kind, block, label: name } = record.modules[m];
      const [column, row] = table ? [kinds.indexOf(kind), blocks.indexOf(block)] : [Math.floor(k / rows), k % rows];
      const [x, y] = [margin + column * slot + label, head + row * high];
      if (label) {
        context.fillStyle = m === chosen ? paint.ink : paint.soft;
        context.fillText(name, x - label, y + high * 0.8, label - 4);
      }
      shares(record.at(place, m)).forEach((share, i) => {
        context.fillStyle = between(
          paint.paper,
          share > 1 ? ORANGE : BLUE,
          Math.min(1, Math.abs(share - 1) / this.reach),
        );
        context.fillRect(x + i * cell, y, Math.max(1, cell - 0.5), high - 1.5);
        if (fresh.has(`${m} ${i}`)) {
          context.fillStyle = paint.ink;
          context.fillRect(x + (i + 0.5) * cell - 1.2, y + high / 2 - 2, 2.4, 2.4);
        }
      });
      if (m === chosen) {
        context.strokeStyle = paint.ink;
        context.lineWidth = 2;
        context.strokeRect(x - 1.5, y - 1.5, cell * record.ranks + 2, high + 1.5);
      }
      return { m, x: x - label, y, w: slot - 6, h: high };
    });
  }
  /** The module at a point of the canvas, or null. */
  at(px, py) {
    return this.cells.find(({ x, y, w, h }) => px >= x && px < x + w && py >= y && py < y + h)?.m ?? null;
  }
}
