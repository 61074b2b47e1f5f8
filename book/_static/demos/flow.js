// Points flow from noise to a two-dimensional data set, under the exact denoiser.
stage.add("flow", (place) => {
  "use strict";
  const REACH = 2, POINTS = 240; // the plane shown is [-REACH, REACH]^2
  const NAMES = { moons: "two moons", eight: "eight spots", rings: "two rings", spiral: "a spiral",
    grid: "a grid", checkerboard: "a checkerboard" };
  const STEPS = { ddim: diffusion.ddimStep, ddpm: diffusion.ddpmStep };
  const schedule = diffusion.cosineSchedule();
  const COUNTS = [1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100];

  let seed = 1, times, states, denoiser, mine = [], film = null, cross = null, passed = 0;

  // Walks the whole cloud once more, after a change of data, sampler, steps or noise.
  function walk() {
    const normal = diffusion.normals(seed), start = Array.from({ length: POINTS }, () => [normal(), normal()]);
    denoiser = diffusion.exactDenoiser(demoData.mixtures[data.value], schedule);
    times = diffusion.timeGrid(schedule, COUNTS[steps.value]);
    states = diffusion.sample(STEPS[sampler.value], denoiser, start, times, 0, normal);
    mine = mine.map(({ from, at }) => drop(from, at));
  }

  // A point of the reader's own, put down after `passed` steps: where it goes from there.
  function drop(from, at) {
    at = Math.min(at, times.length - 2);
    const normal = diffusion.normals(seed + 1000 * (1 + at));
    return { from, at, path: diffusion.sample(STEPS[sampler.value], denoiser, [from], times.slice(at), 0, normal)
      .map(([x]) => x) };
  }

  function dropAt(x, y) {
    mine.push(drop([x, y], Math.min(Math.floor(passed), times.length - 2)));
    play();
  }

  // Between two states a point is drawn on the straight way from one to the other.
  function between(path, place) {
    const i = Math.max(0, Math.min(Math.floor(place), path.length - 2)), u = Math.min(Math.max(place - i, 0), 1);
    return [0, 1].map((d) => path[i][d] + u * (path[i + 1][d] - path[i][d]));
  }

  const now = () => between(times.map((t) => [t, 0]), passed)[0];

  // The share of the points as near to a component as 99% of true points are to theirs.
  function onData() {
    const { means, stds } = demoData.mixtures[data.value];
    const near = ([x, y]) => means.some(([a, b], k) => Math.hypot(x - a, y - b) < 3.03 * stds[k]);
    return states[states.length - 1].filter(near).length / POINTS;
  }

  function paint(pen, size) {
    const px = (x) => (x / REACH + 1) / 2 * size, py = (y) => (1 - y / REACH) / 2 * size, t = now();
    const noised = diffusion.noised(demoData.mixtures[data.value], schedule, t);
    stage.shade(pen, size, REACH, (x, y) => Math.exp(diffusion.logProb(noised, [x, y])), "quiet");
    if (arrows.value !== "none") field(pen, px, py, t);
    const dot = ([x, y], radius) => { pen.beginPath(); pen.arc(px(x), py(y), radius, 0, 7); pen.fill(); };
    const line = (path, until) => {
      pen.beginPath();
      path.slice(0, Math.floor(until) + 1).forEach(([x, y]) => pen.lineTo(px(x), py(y)));
      pen.lineTo(...[px, py].map((f, d) => f(between(path, until)[d])));
      pen.stroke();
    };
    const path = (n) => states.map((state) => state[n]);
    if (trails.value) {
      pen.strokeStyle = stage.color("cool");
      pen.globalAlpha = 0.35;
      for (let n = 0; n < POINTS; n += 6) line(path(n), passed);
      pen.globalAlpha = 1;
    }
    pen.fillStyle = stage.color("cool");
    for (let n = 0; n < POINTS; n++) dot(between(path(n), passed), 2);
    pen.fillStyle = pen.strokeStyle = stage.color("warm");
    pen.lineWidth = 2;
    for (const { at, path } of mine) {
      if (passed < at) continue;
      line(path, passed - at);
      dot(path[0], 3);
      dot(between(path, passed - at), 5);
    }
    pen.lineWidth = 1;
    if (cross && document.activeElement === view.surface) {
      const [x, y] = [px(cross[0]), py(cross[1])];
      pen.strokeRect(x - 6, y - 6, 12, 12);
      pen.strokeRect(x - 0.5, y - 0.5, 1, 1);
    }
  }

  // An arrow from each place of a grid: uphill (the score times sigma, that is -eps_hat, shortened to fit), or all
  // the way to the guess of x0.
  function field(pen, px, py, t) {
    const n = 13;
    pen.strokeStyle = stage.color("ink");
    pen.globalAlpha = 0.7;
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        const x = [(i + 0.5) / n, (j + 0.5) / n].map((u) => (2 * u - 1) * REACH * 0.95);
        const { x0, eps } = denoiser.predict(x, t);
        const to = arrows.value === "x0" ? x0 : x.map((value, d) => value - 0.1 * eps[d]);
        const [ax, ay, bx, by] = [px(x[0]), py(x[1]), px(to[0]), py(to[1])];
        const long = Math.hypot(bx - ax, by - ay), head = Math.min(5, long / 2), turn = Math.atan2(by - ay, bx - ax);
        if (long < 1) continue;
        pen.beginPath();
        pen.moveTo(ax, ay);
        pen.lineTo(bx, by);
        for (const side of [-0.5, 0.5]) {
          pen.moveTo(bx, by);
          pen.lineTo(bx - head * Math.cos(turn + side), by - head * Math.sin(turn + side));
        }
        pen.stroke();
      }
    }
    pen.globalAlpha = 1;
  }

  function show() {
    view.draw();
    said.setAttribute("aria-live", film ? "off" : "polite"); // a film would be read out step by step
    const count = times.length - 1, share = `${Math.round(100 * onData())}%`;
    said.textContent = passed >= count
      ? `After ${count} step${count > 1 ? "s" : ""}, ${share} of the points lie on the data.`
      : `t = ${now().toFixed(2)}, step ${Math.floor(passed)} of ${count}`;
    view.surface.setAttribute("aria-label",
      `A cloud of ${POINTS} points on its way from noise to ${NAMES[data.value]}. ${said.textContent}`);
  }

  function move(share) {
    passed = share * (times.length - 1);
    moment.value = 1000 * share;
    show();
  }

  function halt() {
    film?.stop();
    film = null;
    playing.textContent = "Play";
  }

  function stop() { // and say where
    halt();
    show();
  }

  function play(from = passed / (times.length - 1)) {
    halt();
    if (from >= 1) from = 0;
    playing.textContent = "Pause";
    film = stage.film(5 * (1 - from), (progress) => move(from + (1 - from) * progress), stop);
  }

  function renew() {
    const share = passed / (times.length - 1);
    halt();
    walk();
    move(share);
  }

  const data = stage.menu("Data", NAMES, "moons", renew);
  const sampler = stage.menu("Walk", { ddim: "DDIM", ddpm: "DDPM (fresh noise)" }, "ddim", renew);
  const steps = stage.slider("Steps", { min: 0, max: COUNTS.length - 1, value: COUNTS.indexOf(30) },
    (i) => String(COUNTS[i]), renew);
  const moment = stage.slider("Time", { min: 0, max: 1000, value: 0 },
    () => (times ? `t = ${now().toFixed(2)}` : ""), (value) => { halt(); move(value / 1000); });
  const arrows = stage.menu("Arrows", { none: "none", score: "the score: uphill", x0: "to the guess of x0" }, "none",
    () => show());
  const trails = stage.check("Trails", true, () => show());
  const playing = stage.button("Play", () => (film ? stop() : play()));
  const again = stage.button("Other noise", () => { seed += 1; renew(); });
  const clear = stage.button("Remove my points", () => { mine = []; show(); });
  const said = stage.element("p", { className: "demo-said", role: "status" });
  const view = stage.canvas(1, "", paint);
  view.surface.tabIndex = 0;
  view.surface.addEventListener("click", ({ offsetX, offsetY }) => {
    const at = (pixels) => (2 * pixels / view.surface.clientWidth - 1) * REACH;
    dropAt(at(offsetX), -at(offsetY));
  });
  view.surface.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    cross ??= [0, 0];
    if (way) cross = cross.map((value, d) => Math.max(-REACH, Math.min(REACH, value + 0.1 * way[d])));
    else if (event.key === "Enter") dropAt(...cross);
    else return;
    event.preventDefault();
    show();
  });
  for (const kind of ["focus", "blur"]) {
    view.surface.addEventListener(kind, () => {
      if (view.surface.matches(":focus-visible")) cross ??= [0, 0];
      show();
    });
  }

  place.append(
    stage.element("div", { className: "demo-view" }, view.surface),
    stage.element("div", { className: "demo-controls" },
      stage.element("div", { className: "demo-buttons" }, playing, again, clear),
      moment.label, steps.label, data.label, sampler.label, arrows.label, trails.label, said,
      stage.element("p", { className: "demo-hint" },
        "Click into the picture to drop a point of your own. By keyboard: arrow keys move the square, Enter drops.")));
  walk();
  return { draw: () => move(passed / (times.length - 1)),
    state: () => ({ t: now(), steps: times.length - 1, mine, end: states[states.length - 1], onData: onData() }) };
});
