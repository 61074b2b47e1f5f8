// A noise schedule to be bent by hand: its curve, its signal-to-noise ratio, and a fox at six times.
stage.add("schedules", (place) => {
  "use strict";
  const KNOWN = {
    linear: { schedule: diffusion.linearSchedule(), color: "warm", words: "linear" },
    cosine: { schedule: diffusion.cosineSchedule(), color: "cool", words: "cosine" },
    flow: { schedule: diffusion.rectifiedFlow(), color: "plum", words: "rectified flow" },
  };
  const TIMES = [0, 0.2, 0.4, 0.6, 0.8, 1]; // of the pictures, and from the second on of the handles
  const EDGE = { left: 34, right: 14, top: 14, bottom: 26 };

  let schedule, values; // `values`: the share of the signal at TIMES, which the handles show
  const fox = Array.from(atob(demoData.fox), (byte) => byte.charCodeAt(0)); // red, green, blue, row by row
  const eps = Array.from({ length: fox.length }, diffusion.normals(7));

  // The signal's share of the variance: alpha_bar where alpha^2 + sigma^2 = 1.
  function share(of, t) {
    const signal = of.alpha(t) ** 2;
    return signal / (signal + of.sigma(t) ** 2);
  }

  function choose(name) {
    if (name === "own") bend(1, values[1]);
    else {
      schedule = KNOWN[name].schedule;
      values = TIMES.map((t) => share(schedule, t));
      show();
    }
  }

  // Moves one point; the others give way, so that the signal never comes back.
  function bend(i, value) {
    values = values.map((old, j) => (j === i ? value : j < i ? Math.max(old, value) : Math.min(old, value)));
    schedule = diffusion.curveSchedule(values);
    curve.value = "own";
    show();
  }

  function axes(pen, width, height, low, high, ticks) {
    const px = (t) => EDGE.left + t * (width - EDGE.left - EDGE.right);
    const py = (y) => EDGE.top + (high - y) / (high - low) * (height - EDGE.top - EDGE.bottom);
    pen.font = "12px " + getComputedStyle(place).fontFamily;
    pen.fillStyle = stage.color("ink");
    pen.strokeStyle = stage.color("quiet");
    pen.lineWidth = 0.5;
    pen.textAlign = "center";
    TIMES.forEach((t) => pen.fillText(t === 0 ? "t = 0" : t, px(t), height - 8));
    pen.textAlign = "right";
    for (const y of ticks) {
      pen.beginPath();
      pen.moveTo(px(0), py(y));
      pen.lineTo(px(1), py(y));
      pen.stroke();
      pen.fillText(String(y).replace("-", "\u2212"), EDGE.left - 6, py(y) + 4);
    }
    return (of, value, name, thick) => {
      pen.save();
      pen.beginPath();
      pen.rect(EDGE.left, EDGE.top - 2, width - EDGE.left - EDGE.right, height - EDGE.top - EDGE.bottom + 4);
      pen.clip();
      pen.beginPath();
      for (let i = 0; i <= 250; i++) {
        const y = value(of, i / 250);
        pen.lineTo(px(i / 250), py(Math.min(Math.max(y, low - 100), high + 100)));
      }
      pen.strokeStyle = stage.color(name);
      pen.lineWidth = thick;
      pen.stroke();
      pen.restore();
    };
  }

  function curves(draw, value) {
    for (const known of Object.values(KNOWN)) draw(known.schedule, value, known.color, 1.2);
    draw(schedule, value, curve.value === "own" ? "ink" : KNOWN[curve.value].color, 3);
  }

  function picture(surface, t) {
    const pen = surface.getContext("2d"), image = pen.createImageData(64, 64);
    const alpha = schedule.alpha(t), sigma = schedule.sigma(t);
    for (let i = 0; i < 64 * 64; i++) {
      for (let channel = 0; channel < 3; channel++) {
        const x = alpha * (fox[3 * i + channel] / 127.5 - 1) + sigma * eps[3 * i + channel];
        image.data[4 * i + channel] = Math.round((x + 1) * 127.5); // what is outside [0, 255] is cut off
      }
      image.data[4 * i + 3] = 255;
    }
    pen.putImageData(image, 0, 0);
  }

  function words(value) {
    const rounded = Math.abs(value) === Infinity ? "\u221e" : Math.abs(value).toFixed(1);
    return (value < 0 && rounded !== "0.0" ? "\u2212" : "") + rounded;
  }

  function show() {
    signal.draw();
    ratio.draw();
    handles.forEach((handle, i) => {
      handle.value = values[i + 1];
      handle.setAttribute("aria-valuetext", `${Math.round(100 * values[i + 1])}% of the variance`);
    });
    pictures.forEach(({ surface, says }, i) => {
      picture(surface, TIMES[i]);
      says.textContent = words(diffusion.logSnr(schedule, TIMES[i]));
    });
    const fine = Array.from({ length: 1000 }, (_, i) => share(schedule, (i + 1) / 1000));
    const half = fine.filter((value) => value > 0.5).length / 1000;
    const low = fine.filter((value) => value < 0.05).length / 10;
    said.textContent = `More than half of the variance is signal until t = ${half.toFixed(2)}. `
      + `Less than a twentieth is signal during ${low.toFixed(1)}% of the time.`;
  }

  const curve = stage.menu("Schedule", {
    ...Object.fromEntries(Object.entries(KNOWN).map(([name, known]) => [name, known.words])), own: "your own",
  }, "cosine", choose);
  const said = stage.element("p", { className: "demo-said", role: "status" });
  const signal = stage.canvas(1.5, "The share of the signal against time, falling from 1.", (pen, width, height) => {
    curves(axes(pen, width, height, 0, 1, [0, 0.5, 1]), share);
    place.style.setProperty("--plot-width", `${width - EDGE.left - EDGE.right}px`);
  });
  const ratio = stage.canvas(1.5, "The log signal-to-noise ratio against time, falling.", (pen, width, height) => {
    curves(axes(pen, width, height, -12, 12, [-10, -5, 0, 5, 10]), diffusion.logSnr);
  });
  const handles = TIMES.slice(1).map((t, i) => {
    const handle = stage.element("input", { type: "range", className: "demo-handle", min: 0, max: 1, step: 0.01,
      "aria-label": `signal at t = ${t}`, "aria-orientation": "vertical" });
    handle.style.left = `calc(${EDGE.left - 12}px + ${t} * var(--plot-width, 0px))`;
    handle.addEventListener("input", () => bend(i + 1, +handle.value));
    return handle;
  });
  const pictures = TIMES.map((t) => {
    const surface = stage.element("canvas", { width: 64, height: 64, role: "img" });
    const says = stage.element("b");
    surface.setAttribute("aria-label", `the fox at t = ${t}`);
    return { surface, says, figure: stage.element("div", {}, surface, `t = ${t}`, says) };
  });

  place.classList.add("demo-rows");
  const legend = Object.values(KNOWN).map(({ color, words }) => {
    const mark = stage.element("span", {}, words);
    mark.style.color = `var(--demo-${color})`;
    return mark;
  });
  place.append(
    stage.element("div", { className: "demo-controls" }, curve.label,
      stage.element("div", { className: "demo-legend" }, ...legend)),
    stage.element("div", { className: "demo-pair" },
      stage.element("div", {}, stage.element("div", { className: "demo-title" }, "share of the signal"),
        stage.element("div", { className: "demo-handles" }, signal.surface, ...handles)),
      stage.element("div", {}, stage.element("div", { className: "demo-title" }, "log-SNR"), ratio.surface)),
    stage.element("div", { className: "demo-strip" }, ...pictures.map(({ figure }) => figure)),
    said,
    stage.element("p", { className: "demo-hint" },
      "Drag the five points up and down, or move them with the arrow keys. Bold below a picture: its log-SNR."));

  choose("cosine");
  return { draw: show, state: () => ({ name: curve.value, values,
    logSnr: TIMES.map((t) => diffusion.logSnr(schedule, t)) }) };
});
