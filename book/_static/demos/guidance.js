// Guidance in two dimensions: three classes, their exact denoisers, and what a larger scale does to the samples.
stage.add("guidance", (place) => {
  "use strict";
  const REACH = 2.4, POINTS = 300, STEPS = 40; // the plane shown is at least [-REACH, REACH]^2
  const NAMES = { 1: "orange", 2: "teal", 3: "violet" }, COLORS = { 1: "warm", 2: "cool", 3: "plum" };
  const schedule = diffusion.cosineSchedule(), times = diffusion.timeGrid(schedule, STEPS);
  const mixture = demoData.mixtures.arms, exact = diffusion.exactDenoiser(mixture, schedule);

  let seed = 1, states, reach; // the plane shown is [-reach, reach]^2: it grows with what flees

  function walk() {
    const normal = diffusion.normals(seed), start = Array.from({ length: POINTS }, () => [normal(), normal()]);
    const denoiser = diffusion.guided(exact, scale.value, +negative.value);
    states = diffusion.sample(diffusion.ddimStep, denoiser, start, times, +wanted.value);
    reach = Math.max(REACH, 1.05 * Math.max(...states[STEPS].flat().map(Math.abs)));
  }

  // The class that a point most probably belongs to.
  function likeliest(x) {
    const heights = Object.keys(NAMES).map((label) => diffusion.logProb(mixture, x, +label));
    return 1 + heights.indexOf(Math.max(...heights));
  }

  // The root mean square distance of points from their mean.
  function spread(points) {
    const mean = [0, 1].map((d) => points.reduce((sum, x) => sum + x[d], 0) / points.length);
    return Math.sqrt(points.reduce((sum, x) => sum + (x[0] - mean[0]) ** 2 + (x[1] - mean[1]) ** 2, 0) / points.length);
  }

  // The same of the class itself, exactly: within its Gaussians and between them.
  function trueSpread(label) {
    const mine = mixture.labels.flatMap((other, k) => (other === label ? [k] : []));
    const within = mine.reduce((sum, k) => sum + 2 * mixture.stds[k] ** 2, 0) / mine.length;
    return Math.sqrt(within + spread(mine.map((k) => mixture.means[k])) ** 2);
  }

  // Whether a point lies farther from the middle of each Gaussian of the class than 99% of that Gaussian's points.
  function outside(x, label) {
    return mixture.means.every(([a, b], k) => mixture.labels[k] !== label
      || Math.hypot(x[0] - a, x[1] - b) > 3.03 * mixture.stds[k]);
  }

  function numbers() {
    const end = states[STEPS], label = +wanted.value;
    return {
      inside: end.filter((x) => likeliest(x) === label).length / POINTS,
      outside: end.filter((x) => outside(x, label)).length / POINTS,
      spread: spread(end) / trueSpread(label),
    };
  }

  function paint(pen, size) {
    const px = (x) => (x / reach + 1) / 2 * size, py = (y) => (1 - y / reach) / 2 * size;
    for (const label of Object.keys(NAMES)) {
      stage.shade(pen, size, reach, (x, y) => Math.exp(diffusion.logProb(mixture, [x, y], +label)), COLORS[label]);
    }
    pen.strokeStyle = pen.fillStyle = stage.color("ink");
    for (let n = 0; n < POINTS; n++) {
      if (trails.value && n % 5 === 0) {
        pen.globalAlpha = 0.3;
        pen.beginPath();
        for (const state of states) pen.lineTo(px(state[n][0]), py(state[n][1]));
        pen.stroke();
        pen.globalAlpha = 1;
      }
      pen.beginPath();
      pen.arc(px(states[STEPS][n][0]), py(states[STEPS][n][1]), 2, 0, 7);
      pen.fill();
    }
  }

  function show() {
    walk();
    view.draw();
    const now = numbers(), percent = (value) => `${Math.round(100 * value)}%`;
    facts.replaceChildren(...[
      [`most likely ${NAMES[wanted.value]}`, percent(now.inside)],
      ["outside the data", percent(now.outside)],
      ["spread (true class: 100%)", percent(now.spread)],
    ].map(([name, value]) => stage.element("div", {}, stage.element("span", {}, name), stage.element("b", {}, value))));
    view.surface.setAttribute("aria-label", `${POINTS} samples of the class ${NAMES[wanted.value]}, guidance scale `
      + `${scale.value}: ${facts.innerText.replace(/\n+/g, " ")}`);
  }

  const scale = stage.slider("Scale", { min: 0, max: 8, step: 0.25, value: 1 },
    (value) => (value === 0 ? "0: class ignored" : value === 1 ? "1: off" : String(value)), show);
  const wanted = stage.menu("Class", NAMES, "1", show);
  const negative = stage.menu("Away from", { 0: "no class", ...NAMES }, "0", show);
  const trails = stage.check("Trails", false, show);
  const again = stage.button("Other noise", () => { seed += 1; show(); });
  const facts = stage.element("div", { className: "demo-facts", role: "status" });
  const view = stage.canvas(1, "", paint);

  place.append(
    stage.element("div", { className: "demo-view" }, view.surface),
    stage.element("div", { className: "demo-controls" }, scale.label, wanted.label, negative.label, trails.label,
      stage.element("div", { className: "demo-buttons" }, again), facts));
  walk();
  return { draw: show, state: () => ({ ...numbers(), end: states[STEPS], reach }) };
});
