// A little algebra. A matrix is an array of rows, each a Float64Array.

export const zeros = (rows, columns) => Array.from({ length: rows }, () => new Float64Array(columns));
export const copyOf = (M) => M.map((row) => row.slice());
const transpose = (M) => Array.from(M[0], (_, j) => Float64Array.from(M, (row) => row[j]));

export function dot(x, y) {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i] * y[i];
  return sum;
}

/** M += scale * b a^T. */
export function addOuter(M, b, a, scale) {
  for (let i = 0; i < b.length; i++) {
    const factor = scale * b[i];
    if (factor !== 0) for (let j = 0; j < a.length; j++) M[i][j] += factor * a[j];
  }
}

export function timesVector(M, x) {
  const out = new Float64Array(M.length);
  for (let i = 0; i < out.length; i++) out[i] = dot(M[i], x);
  return out;
}

export function vectorTimes(y, M) {
  const out = new Float64Array(M[0].length);
  for (let i = 0; i < y.length; i++) for (let j = 0; j < out.length; j++) out[j] += y[i] * M[i][j];
  return out;
}

export function frobenius(M) {
  return Math.sqrt(M.reduce((sum, row) => sum + dot(row, row), 0));
}

/** Singular values, falling, with their vectors, by Jacobi's rotations of rows: M = sum_k S_k U_k V_k^T. */
export function svd(M) {
  if (M.length > M[0].length) {
    const { U, S, V } = svd(transpose(M));
    return { U: V, S, V: U };
  }
  const rows = copyOf(M);
  const turn = Array.from(M, (_, i) => Float64Array.from(M, (_, j) => (i === j ? 1 : 0)));
  for (let sweep = 0, turned = true; turned && sweep < 60; sweep++) {
    turned = false;
    for (let p = 0; p < rows.length; p++) {
      for (let q = p + 1; q < rows.length; q++) {
        const off = dot(rows[p], rows[q]);
        const [pp, qq] = [dot(rows[p], rows[p]), dot(rows[q], rows[q])];
        if (Math.abs(off) <= 1e-15 * Math.sqrt(pp * qq) || off === 0) continue;
        turned = true;
        const zeta = (qq - pp) / (2 * off);
        const t = (zeta >= 0 ? 1 : -1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
        const c = 1 / Math.sqrt(1 + t * t);
        for (const of of [rows, turn]) {
          const [x, y] = [of[p], of[q]];
          for (let j = 0; j < x.length; j++) {
            const [xj, yj] = [x[j], y[j]];
            x[j] = c * (xj - t * yj);
            y[j] = c * (yj + t * xj);
          }
        }
      }
    }
  }
  const sizes = rows.map((row) => Math.sqrt(dot(row, row)));
  const order = sizes.map((_, k) => k).sort((p, q) => sizes[q] - sizes[p] || p - q);
  const unit = (row, size) => row.map((x) => (size > 0 ? x / size : 0));
  return {
    U: order.map((k) => turn[k].slice()),
    S: order.map((k) => sizes[k]),
    V: order.map((k) => unit(rows[k], sizes[k])),
  };
}

export const singularValues = (M) => svd(M).S;

/** Exponential of the entropy of the normalized singular values: k equal ones give k. */
export function effectiveRank(values) {
  const total = values.reduce((sum, s) => sum + s, 0);
  if (!(total > 0)) return 0;
  return Math.exp(values.reduce((sum, s) => sum - (s > 0 ? (s / total) * Math.log(s / total) : 0), 0));
}

/** Indices from the largest value on, ties by index. */
export const falling = (values) => values.map((_, i) => i).sort((i, j) => values[j] - values[i] || i - j);

/** To the nearest whole number, halves to the even one, as Python rounds. */
export function round(x) {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}
