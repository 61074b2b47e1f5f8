/* From noise to a picture: what minidiff.schedules, guidance and samplers do in Python, with the same symbols.
 *
 * x, x0, eps: Float32Array of 3 * H * W numbers in [-1, 1], channel after channel, as torch lays them out.
 * Here lies only what the page needs: rectified flow, classifier-free guidance, DPM-Solver++(2M).
 */

/* RectifiedFlow: x_t = alpha(t) x0 + sigma(t) eps, the straight line from data (t = 0) to noise (t = 1). */
const alpha = (t) => Math.fround(1 - t);
const sigma = (t) => t;

/* time_grid: steps + 1 times from 1 down to 0, t = shift u / (1 + (shift - 1) u) for evenly spaced u (Esser et al. 2024, equation 23). */
export function timeGrid(steps, shift) {
  const evenly = Array.from({ length: steps + 1 }, (_, i) => 1 - i / steps);
  return Float32Array.from(evenly, (u) => (shift * u) / (1 + (shift - 1) * u));
}

/* interpret("flow", output, x_t): the network says eps - x0, so x0_hat = (x_t - sigma output) / (alpha + sigma). */
export function interpretFlow(output, x_t, t) {
  const sigma_t = sigma(t), total = alpha(t) + sigma_t;
  return x_t.map((x, i) => (x - sigma_t * output[i]) / total);
}

/* Guided: x0_hat = x0_null + scale (x0_cond - x0_null); scale 1 is off (Ho & Salimans 2022, equation 6). */
export function guide(x0_cond, x0_null, scale) {
  return x0_cond.map((x0, i) => x0_null[i] + scale * (x0 - x0_null[i]));
}

/* dpmpp_2m_step, from t to s < t (Lu et al. 2022, algorithm 2). With lambda = log(alpha / sigma), h = lambda_s - lambda_t
 * and r = h_before / h: x_s = (sigma_s / sigma_t) x_t - alpha_s (exp(-h) - 1) D, D = (1 + 1/(2r)) x0_hat - 1/(2r) x0_before.
 * memory: [x0_before, lambda_before], null at the first step. Returns [x_s, memory].
 */
export function dpmpp2mStep(x0, x_t, t, s, memory) {
  const lambda = (t) => Math.log(alpha(t)) - Math.log(sigma(t));
  const lambda_t = lambda(t), lambda_s = lambda(s);
  let half = 0; // 1/(2r); zero where a step is infinitely long in lambda, that is at pure noise and at sigma = 0
  if (memory) half = (lambda_s - lambda_t) / (lambda_t - memory[1]) / 2;
  if (!Number.isFinite(half)) half = 0;
  const x0_before = memory ? memory[0] : x0;
  // alpha_s (1 - exp(-h)) = alpha_s - alpha_t sigma_s / sigma_t, which stays finite at both ends of time.
  const keep = sigma(s) / sigma(t), pull = alpha(s) - alpha(t) * keep;
  const x_s = x_t.map((x, i) => keep * x + pull * (x0[i] + half * (x0[i] - x0_before[i])));
  return [x_s, [x0, lambda_t]];
}

/* sample: walk x along the times and yield every state on the way; the last one is the picture.
 * denoise(x_t, t) resolves to { x0, ... }, and whatever else it says is passed on with the state.
 */
export async function* sample(denoise, x, times) {
  let memory = null;
  for (let i = 0; i + 1 < times.length; i++) {
    const said = await denoise(x, times[i]);
    [x, memory] = dpmpp2mStep(said.x0, x, times[i], times[i + 1], memory);
    yield { ...said, x };
  }
}

/* Standard normal noise from a seed: xoshiro128** (Blackman & Vigna 2018), whose state splitmix32 fills, then Box-Muller.
 * PyTorch draws from another generator, so a seed means another picture there.
 */
export function noise(seed, length) {
  const state = new Uint32Array(4).map(() => {
    seed = (seed + 0x9e3779b9) | 0;
    let z = Math.imul(seed ^ (seed >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return z ^ (z >>> 15);
  });
  const rotate = (x, k) => (x << k) | (x >>> (32 - k));
  const uniform = () => { // above 0 and up to 1, so that its logarithm is finite
    const next = Math.imul(rotate(Math.imul(state[1], 5), 7), 9) >>> 0;
    const shifted = state[1] << 9;
    state[2] ^= state[0]; state[3] ^= state[1]; state[1] ^= state[2]; state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate(state[3], 11);
    return (next + 1) / 2 ** 32;
  };
  return new Float32Array(length).map(() => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
}
