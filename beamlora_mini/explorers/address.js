// The arena's state in the address of its page: "#method=LoRA&b.method=BeamLoRA&n=40&lock=r,lr".

/** {a, b, edits, n, lock, fork, experiment}: settings of both lanes, what was done by hand, the step, what is locked, the experiment from 1. */
export function fromFragment(fragment) {
  const state = { a: {}, b: null, edits: { a: [], b: [] }, n: 0, lock: [], fork: null, experiment: 0 };
  for (const [key, value] of new URLSearchParams(fragment.replace(/^#/, ""))) {
    const lane = key.startsWith("b.") ? "b" : "a";
    const name = key.replace(/^b\./, "");
    if (name === "n") state.n = stepFrom(value);
    else if (name === "experiment") state.experiment = stepFrom(value);
    else if (name === "lock") state.lock = value.split(",");
    else if (name === "fork") state.fork = stepFrom(value);
    else if (name === "edits") state.edits[lane] = value.split(",").map(editFrom).filter(Boolean);
    else if (name === "switches")
      state.a.switches = value.split(",").filter(Boolean).map(Number).filter(Number.isInteger);
    else if (lane === "b") state.b = { ...state.b, [name]: parsed(value) };
    else state.a[name] = parsed(value);
  }
  return state;
}

export function toFragment({ a, b, edits, n, lock, fork, experiment }) {
  const parts = new URLSearchParams();
  const given = (of) =>
    Object.entries(of ?? {}).filter(([, value]) => value !== null && value !== undefined && value?.length !== 0);
  for (const [name, value] of given(a)) parts.set(name, value);
  for (const [name, value] of given(b)) parts.set(`b.${name}`, value);
  if (edits.a.length) parts.set("edits", edits.a.map(editText));
  if (edits.b.length) parts.set("b.edits", edits.b.map(editText));
  if (fork !== null) parts.set("fork", fork);
  if (experiment) parts.set("experiment", experiment);
  if (n) parts.set("n", n);
  if (lock.length) parts.set("lock", lock);
  return `#${parts}`.replaceAll("%2C", ",");
}

const stepFrom = (text) => Math.max(0, Math.floor(Number(text)) || 0);
const parsed = (text) => (text !== "" && Number.isFinite(Number(text)) ? Number(text) : text);

const KINDS = { p: "prune", f: "fresh", c: "copy" };

/** "40p0.3": after step 40 rank 3 of module 0 is pruned; "40f0.3": made fresh; "80c0.2.1.20": it gets a copy of rank 1 as of 20 steps ago. */
function editFrom(text) {
  const [, step, kind, module, slot, source, lag] =
    text.match(/^(\d+)([pfc])(\d+)\.(\d+)(?:\.(\d+))?(?:\.(\d+))?$/) ?? [];
  if (!kind || (kind === "c") !== (source !== undefined)) return null;
  const edit = { step: +step, kind: KINDS[kind], module: +module, slot: +slot };
  return kind === "c" ? { ...edit, source: +source, lag: +(lag ?? 0) } : edit;
}
const editText = ({ step, kind, module, slot, source, lag }) =>
  `${step}${kind[0]}${module}.${slot}${kind === "copy" ? `.${source}${lag ? `.${lag}` : ""}` : ""}`;
