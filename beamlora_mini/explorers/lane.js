// A lane of the arena: one run, computed as far as somebody has looked, and what was to be seen at every step.

import { effectiveRank, singularValues } from "./algebra.js";
import { Arena } from "./engine.js";
import { shown } from "./look.js";

export class Lane {
  constructor(key, given, edits = []) {
    this.key = key;
    this.signature = JSON.stringify([given, edits]);
    this.arena = new Arena(given, edits);
    this.kept = [];
    this.keep();
  }
  get settings() {
    return this.arena.settings;
  }
  get name() {
    const { method, r, lr } = this.settings;
    return `${method} r ${r}, rate ${shown(lr)}`;
  }
  keep() {
    const { layers, world, n, settings } = this.arena;
    this.kept.push({
      deltas: layers.map((layer) => layer.delta()),
      change: world.change,
      surface: world.surface,
      pattern: world.pattern,
      lr: settings.lr,
    });
  }
  /** Steps on to step n, at most to the end. */
  upTo(n) {
    while (this.arena.n < Math.min(n, this.settings.steps)) {
      this.arena.step();
      this.keep();
    }
    return this;
  }
  /** What is to be seen at step n, which has been computed. */
  at(n) {
    const { arena, kept } = this;
    n = Math.min(n, arena.n);
    const now = kept[n];
    now.values ??= now.deltas.map(singularValues);
    return {
      ...now,
      n,
      settings: arena.settings,
      loss: arena.losses[n - 1] ?? null,
      left: arena.left[n],
      curve: arena.left.slice(0, n + 1),
      sizes: arena.sizes.slice(0, n + 1),
      before: arena.before,
      events: arena.events.filter(({ step }) => step <= n),
      ranks: now.values.map(effectiveRank),
      switches: arena.settings.switches.filter((step) => step <= n),
    };
  }
}

/** The last event in words. */
export function lastEvent({ events, deltas }) {
  const last = events.at(-1);
  if (!last) return "No event yet.";
  const same = events.filter(({ step, kind }) => step === last.step && kind === last.kind);
  const where = deltas.length > 1 ? (event) => ` of layer ${event.module + 1}` : () => "";
  const told = {
    expand: (event) =>
      event.source === null
        ? `rank ${event.slot}${where(event)} made room for a fresh one`
        : `rank ${event.slot}${where(event)} made room for a copy of ${event.source}`,
    prune: (event) => `rank ${event.slot}${where(event)} was pruned`,
    revive: (event) => `rank ${event.slot}${where(event)} came back`,
    grow: (event) => `rank ${event.slot}${where(event)} grew`,
    restart: () => "all ranks started anew",
  }[last.kind];
  return `At step ${last.step}: ${[...new Set(same.map(told))].join(", ")}.`;
}

/** How lanes are called: by method, and by what else they differ in. */
export function namesOf(lanes) {
  if (lanes.length < 2) return [lanes[0].name];
  const [a, b] = lanes.map(({ settings }) => settings);
  const names = ["r", "lr", "alpha", "fill", "dead", "period", "temperature", "p_start", "snapshot_lag", "target_r"];
  const differ = names
    .filter(
      (name) =>
        name in a &&
        name in b &&
        a[name] !== b[name] &&
        !(name === "alpha" && a.alpha / a.r === b.alpha / b.r) &&
        !(name === "snapshot_lag" && a.fill !== b.fill),
    )
    .slice(0, 3);
  return lanes.map(({ settings, key }) => {
    const own = differ.map(
      (name) =>
        `${{ lr: "rate", p_start: "p", fill: "copies:", snapshot_lag: "lag", target_r: "target" }[name] ?? name} ${settings[name]}`,
    );
    return (
      [settings.method, ...own].join(", ") +
      (differ.length || a.method !== b.method ? "" : key === "a" ? " (first)" : " (second)")
    );
  });
}
