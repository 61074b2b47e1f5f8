// The mathematics of the live demos, in the symbols of the book: x_t = alpha(t) x0 + sigma(t) eps, t from 0 (data)
// to 1 (noise). It is minidiff's schedules, toy, guidance and samplers once more, for points of the plane; a test
// runs both on the same numbers. A point is [x, y]; a mixture is {weights, means, stds, labels}, lists of equal
// length; a denoiser is {schedule, predict(x_t, t, label) -> {x0, eps}}, where label 0 stands for "no condition".
const diffusion = (() => {
  "use strict";

  // --- schedules ---------------------------------------------------------------------------------------------

  // T small steps; alpha_bar(i/T) = (1 - beta_1) ... (1 - beta_i), and log alpha_bar is interpolated between them.
  function discreteSchedule(betas, tMax = 1) {
    const T = betas.length, table = [0];
    for (const beta of betas) table.push(table[table.length - 1] + Math.log1p(-beta));
    function logAlphaBar(t) {
      const place = Math.min(Math.max(t, 0), 1) * T, low = Math.min(Math.floor(place), T - 1);
      return table[low] + (place - low) * (table[low + 1] - table[low]);
    }
    return {
      alpha: (t) => Math.exp(logAlphaBar(t) / 2),
      sigma: (t) => Math.sqrt(-Math.expm1(logAlphaBar(t))),
      tMax,
    };
  }

  // beta rises in a straight line (Ho et al. 2020).
  function linearSchedule(T = 1000) {
    const scale = 1000 / T;
    return discreteSchedule(Array.from({ length: T }, (_, i) => scale * (1e-4 + (0.02 - 1e-4) * i / (T - 1))));
  }

  // alpha_bar(t) = f(t) / f(0), f(t) = cos^2((t + s) / (1 + s) pi / 2), s = 0.008 (Nichol & Dhariwal 2021).
  function cosineSchedule(T = 1000) {
    const s = 0.008, f = (i) => Math.cos((i / T + s) / (1 + s) * Math.PI / 2) ** 2;
    return discreteSchedule(Array.from({ length: T }, (_, i) => Math.min(1 - f(i + 1) / f(i), 0.999)), 1 - 1 / T);
  }

  // The straight line from data to noise (Liu et al. 2023).
  function rectifiedFlow() {
    return { alpha: (t) => 1 - t, sigma: (t) => t, tMax: 1 };
  }

  // A schedule of one's own: alpha_bar through n + 1 values at t = 0, 1/n, ..., 1, and monotone in between
  // (cubic, with the slopes of Fritsch & Butland 1984).
  function curveSchedule(values) {
    const n = values.length - 1, rise = values.slice(1).map((value, i) => value - values[i]);
    const slope = values.map((_, i) => {
      if (i > 0 && i < n) return rise[i - 1] * rise[i] > 0 ? 2 / (1 / rise[i - 1] + 1 / rise[i]) : 0;
      const [near, far] = i === 0 ? [rise[0], rise[1]] : [rise[n - 1], rise[n - 2]];
      const end = (3 * near - far) / 2;
      if (end * near <= 0) return 0;
      return near * far < 0 && Math.abs(end) > 3 * Math.abs(near) ? 3 * near : end;
    });
    function alphaBar(t) {
      const i = Math.min(Math.floor(t * n), n - 1), u = t * n - i;
      const cubic = slope[i] * u * (1 - u) ** 2 - slope[i + 1] * u ** 2 * (1 - u);
      return Math.min(Math.max(values[i] + rise[i] * u ** 2 * (3 - 2 * u) + cubic, 0), 1);
    }
    return { alpha: (t) => Math.sqrt(alphaBar(t)), sigma: (t) => Math.sqrt(1 - alphaBar(t)), tMax: 1 };
  }

  // log(alpha^2 / sigma^2): +Infinity at data, falling.
  function logSnr(schedule, t) {
    return 2 * (Math.log(schedule.alpha(t)) - Math.log(schedule.sigma(t)));
  }

  // steps + 1 evenly spaced times from the schedule's noise end to 0, in single precision as in Python.
  function timeGrid(schedule, steps) {
    return Array.from({ length: steps + 1 }, (_, i) => Math.fround(schedule.tMax * (1 - i / steps)));
  }

  // --- mixtures of Gaussians ---------------------------------------------------------------------------------

  // The distribution of x_t: means alpha m_k, variances alpha^2 s_k^2 + sigma^2.
  function noised(mixture, schedule, t) {
    const alpha = schedule.alpha(t), sigma = schedule.sigma(t);
    return {
      weights: mixture.weights,
      means: mixture.means.map(([x, y]) => [alpha * x, alpha * y]),
      stds: mixture.stds.map((s) => Math.hypot(alpha * s, sigma)),
      labels: mixture.labels,
    };
  }

  // log(weights_k N(x; m_k, s_k^2 I)) for each component; -Infinity for those of another label than the one wanted.
  function logJoint(mixture, [x, y], label = 0) {
    return mixture.means.map(([mx, my], k) => {
      if (label && mixture.labels[k] !== label) return -Infinity;
      const variance = Math.max(mixture.stds[k] ** 2, 1e-18);
      const squared = (x - mx) ** 2 + (y - my) ** 2;
      return Math.log(mixture.weights[k]) - squared / (2 * variance) - Math.log(2 * Math.PI * variance);
    });
  }

  function logSumExp(values) {
    const top = values.reduce((a, b) => Math.max(a, b), -Infinity);
    return top === -Infinity ? top : top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0));
  }

  // log p(x, label), or log p(x) for label 0.
  function logProb(mixture, x, label = 0) {
    return logSumExp(logJoint(mixture, x, label));
  }

  // --- denoisers ---------------------------------------------------------------------------------------------

  // The best denoiser there can be. With r_k = p(component k | x_t) and v_k = alpha^2 s_k^2 + sigma^2,
  // x0 = sum_k r_k (m_k + alpha s_k^2 / v_k (x_t - alpha m_k)) and eps = sigma sum_k r_k (x_t - alpha m_k) / v_k.
  function exactDenoiser(mixture, schedule) {
    let last = null; // the mixture noised to the time asked for last: a whole cloud asks at one time
    function predict(x_t, t, label = 0) {
      if (last === null || last.t !== t) last = { t, mixture: noised(mixture, schedule, t) };
      const alpha = schedule.alpha(t), sigma = schedule.sigma(t);
      const logs = logJoint(last.mixture, x_t, label), total = logSumExp(logs);
      const x0 = [0, 0], eps = [0, 0];
      for (let k = 0; k < logs.length; k++) {
        const r = Math.exp(logs[k] - total);
        if (r < 1e-12) continue;
        const v = Math.max(last.mixture.stds[k] ** 2, 1e-18), pull = alpha * mixture.stds[k] ** 2 / v;
        for (let d = 0; d < 2; d++) {
          const gap = x_t[d] - last.mixture.means[k][d];
          x0[d] += r * (mixture.means[k][d] + pull * gap);
          eps[d] += sigma * r * gap / v;
        }
      }
      return { x0, eps };
    }
    return { schedule, predict };
  }

  // Classifier-free guidance (Ho & Salimans 2022): away from what is said about `negative` (0: no condition) and
  // towards what is said about the label. scale 0 ignores the label, 1 is no guidance.
  function guided(denoiser, scale, negative = 0) {
    function predict(x_t, t, label) {
      const a = denoiser.predict(x_t, t, label), b = denoiser.predict(x_t, t, negative);
      const beyond = (name) => [0, 1].map((d) => b[name][d] + scale * (a[name][d] - b[name][d]));
      return { x0: beyond("x0"), eps: beyond("eps") };
    }
    return { schedule: denoiser.schedule, predict };
  }

  // --- samplers ----------------------------------------------------------------------------------------------

  // x_s = alpha_s x0_hat + sigma_s eps_hat (Song et al. 2021).
  function ddimStep(denoiser, x_t, t, s, label = 0) {
    const { x0, eps } = denoiser.predict(x_t, t, label);
    const alpha = denoiser.schedule.alpha(s), sigma = denoiser.schedule.sigma(s);
    return [0, 1].map((d) => alpha * x0[d] + sigma * eps[d]);
  }

  // Draw x_s from q(x_s | x_t, x0_hat) (Ho et al. 2020, for any s < t). normal() is a standard normal number.
  function ddpmStep(denoiser, x_t, t, s, label, normal) {
    const { alpha, sigma } = denoiser.schedule, { x0 } = denoiser.predict(x_t, t, label);
    const a = alpha(t) / alpha(s), variance = Math.max(sigma(t) ** 2 - (a * sigma(s)) ** 2, 0);
    const keep = a * sigma(s) ** 2 / sigma(t) ** 2, pull = alpha(s) * variance / sigma(t) ** 2;
    const std = Math.sqrt(variance) * sigma(s) / sigma(t);
    return [0, 1].map((d) => keep * x_t[d] + pull * x0[d] + std * normal());
  }

  // All states of a cloud of points on its way along `times`, the start included: states[i][n] is point n at times[i].
  function sample(step, denoiser, points, times, label = 0, normal = null) {
    const states = [points];
    for (let i = 0; i + 1 < times.length; i++) {
      states.push(states[i].map((x) => step(denoiser, x, times[i], times[i + 1], label, normal)));
    }
    return states;
  }

  // A source of standard normal numbers that depends on the seed alone (mulberry32, then Box and Muller).
  function normals(seed) {
    let state = seed >>> 0;
    function uniform() {
      state = (state + 0x6d2b79f5) >>> 0;
      let z = Math.imul(state ^ (state >>> 15), 1 | state);
      z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
      return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
    }
    return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  }

  return {
    linearSchedule, cosineSchedule, rectifiedFlow, curveSchedule, logSnr, timeGrid,
    noised, logProb, exactDenoiser, guided, ddimStep, ddpmStep, sample, normals,
  };
})();
