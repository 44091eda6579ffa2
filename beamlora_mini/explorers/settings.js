// Settings of an arena: their defaults and what is allowed. settings.py has the same table.

export const METHODS = ["LoRA", "PiSSA", "MiLoRA", "DoRA", "ReLoRA", "AdaLoRA", "IncreLoRA", "BeamLoRA"];
export const PATTERNS = ["circle", "corners", "stripes", "spiral"];
const FILLS = ["history", "now", "fresh"];

const COMMON = {
  method: "LoRA",
  world: "matrix",
  size: 16,
  true_rank: 5,
  noise: 0.05,
  base: "circle",
  pattern: "corners",
  r: 6,
  alpha: null,
  lr: 0.02,
  steps: 200,
  batch: 32,
  dead: 0,
  switches: [],
  seed: 0,
};
const OWN = {
  ReLoRA: { merge_every: null, restart_warmup: null },
  AdaLoRA: { target_r: null, tinit: null, tfinal: null, deltaT: 10, beta1: 0.85, beta2: 0.85, orth_reg_weight: 0.5 },
  IncreLoRA: {
    target_r: null,
    top_h: null,
    init_warmup: null,
    incre_interval: null,
    growth_warmup: null,
    beta1: 0.85,
    beta2: 0.85,
    orth_reg_weight: 0.5,
  },
  BeamLoRA: {
    temperature: 0.2,
    period: null,
    p_start: 0.8,
    end_step: null,
    snapshot_lag: null,
    scope: "global",
    max_prune_fraction: 0.5,
    fill: "history",
  },
};

const isWhole =
  (least, most = Infinity) =>
  (x) =>
    Number.isInteger(x) && x >= least && x <= most;
const isNumber =
  (least, most = Infinity) =>
  (x) =>
    Number.isFinite(x) && x >= least && x <= most;
const above0 = (x) => Number.isFinite(x) && x > 0;
const within = (x) => Number.isFinite(x) && x > 0 && x < 1;
const oneOf =
  (...names) =>
  (x) =>
    names.includes(x);

const ALLOWED = {
  method: [oneOf(...METHODS), `one of ${METHODS.join(", ")}`],
  world: [oneOf("matrix", "plane"), "matrix or plane"],
  size: [isWhole(2, 64), "an integer from 2 to 64"],
  noise: [isNumber(0), "a number of at least 0"],
  base: [oneOf(...PATTERNS), `one of ${PATTERNS.join(", ")}`],
  pattern: [oneOf(...PATTERNS), `one of ${PATTERNS.join(", ")}`],
  r: [isWhole(1, 64), "an integer from 1 to 64"],
  alpha: [above0, "a number above 0"],
  lr: [above0, "a number above 0"],
  steps: [isWhole(1, 5000), "an integer from 1 to 5000"],
  batch: [isWhole(1, 1024), "an integer from 1 to 1024"],
  seed: [isWhole(0, 4294967295), "an integer from 0 to 4294967295"],
  switches: [(x) => Array.isArray(x) && x.every(isWhole(1)), "a list of steps, from 1"],
  deltaT: [isWhole(1), "an integer of at least 1"],
  beta1: [within, "a number between 0 and 1"],
  beta2: [within, "a number between 0 and 1"],
  orth_reg_weight: [isNumber(0), "a number of at least 0"],
  merge_every: [isWhole(1), "an integer of at least 1"],
  init_warmup: [isWhole(0), "an integer of at least 0"],
  growth_warmup: [isWhole(0), "an integer of at least 0"],
  top_h: [isWhole(1), "an integer of at least 1"],
  incre_interval: [isWhole(1), "an integer of at least 1"],
  tinit: [isWhole(0), "an integer of at least 0"],
  tfinal: [isWhole(1), "an integer of at least 1"],
  temperature: [above0, "a number above 0"],
  period: [isWhole(1), "an integer of at least 1"],
  p_start: [(x) => Number.isFinite(x) && x > 0 && x <= 1, "a number in (0, 1]"],
  end_step: [isWhole(1), "an integer of at least 1"],
  max_prune_fraction: [isNumber(0, 1), "a number from 0 to 1"],
  scope: [oneOf("global", "module"), "global or module"],
  fill: [oneOf(...FILLS), `one of ${FILLS.join(", ")}`],
};

export function require(holds, name, value, allowed) {
  if (!holds) throw new RangeError(`${name}=${JSON.stringify(value)}: allowed is ${allowed}`);
}

/** All settings of a run: what is not given takes a default that suits the rest. RangeError, by name, for others. */
export function complete(given = {}) {
  const method = given.method ?? COMMON.method;
  require(METHODS.includes(method), "method", method, `one of ${METHODS.join(", ")}`);
  const all = { ...COMMON, ...(OWN[method] ?? {}) };
  for (const name of Object.keys(given)) {
    require(name in all, name, given[name], `a setting of ${method}: ${Object.keys(all).join(", ")}`);
    if (given[name] !== null && given[name] !== undefined) all[name] = given[name];
  }
  for (const [name, [holds, allowed]] of Object.entries(ALLOWED)) {
    if (name in all && all[name] !== null) require(holds(all[name]), name, all[name], allowed);
  }
  require(isWhole(1, all.size)(all.true_rank), "true_rank", all.true_rank, `an integer from 1 to size = ${all.size}`);
  require(isWhole(0, all.r)(all.dead), "dead", all.dead, `an integer from 0 to r = ${all.r}`);
  if (["PiSSA", "MiLoRA"].includes(method)) {
    require(all.r <= all.size, "r", all.r, `an integer up to ${all.size}, the size of the layer`);
  }
  const { r, steps } = all;
  const suit = (name, value) => (all[name] ??= value);
  suit("alpha", r);
  if (method === "ReLoRA") {
    suit("merge_every", Math.max(1, Math.floor(steps / 4)));
    suit("restart_warmup", Math.min(5, all.merge_every - 1));
    const most = all.merge_every - 1;
    require(isWhole(0, most)(all.restart_warmup), "restart_warmup", all.restart_warmup, `an integer from 0 to ${most}`);
  } else if (method === "AdaLoRA") {
    require(r >= 2, "r", r, "an integer of at least 2, to prune from");
    suit("target_r", Math.max(1, Math.floor(r / 2)));
    suit("tinit", Math.floor(steps / 10));
    suit("tfinal", Math.max(1, Math.floor(steps / 2)));
    require(isWhole(1, r - 1)(all.target_r), "target_r", all.target_r, `an integer from 1 to r - 1 = ${r - 1}`);
    const sum = all.tinit + all.tfinal;
    require(sum < steps, "tinit + tfinal", sum, `less than steps = ${steps}`);
  } else if (method === "IncreLoRA") {
    require(all.dead === 0, "dead", all.dead, "0 for IncreLoRA, which starts small");
    suit("target_r", 2 * r);
    require(isWhole(r + 1)(all.target_r), "target_r", all.target_r, `an integer of at least r + 1 = ${r + 1}`);
  } else if (method === "BeamLoRA") {
    suit("period", Math.max(1, Math.floor(steps / 5)));
    suit("end_step", Math.max(1, Math.floor((2 * steps) / 3)));
    suit("snapshot_lag", all.fill === "now" ? 0 : Math.floor(all.period / 2));
    const most = all.period - 1;
    require(isWhole(
      0,
      most,
    )(all.snapshot_lag), "snapshot_lag", all.snapshot_lag, `an integer from 0 to period - 1 = ${most}`);
  }
  return all;
}
