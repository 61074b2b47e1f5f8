// What the live demos share: controls with labels, canvases that stay sharp, the colors of the page, and waking up
// only when seen. A demo is `stage.add(name, build)`; build(figure) fills it once it comes into view and returns
// {draw, state}: draw() paints everything anew, state() tells in plain numbers what is shown.
const stage = (() => {
  "use strict";

  const still = matchMedia("(prefers-reduced-motion: reduce)");

  // An element: element("p", {className: "hint"}, "text", other).
  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in made) made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  // A slider with its name and its value in words.
  function slider(name, { min, max, step = 1, value }, words, changed) {
    const input = element("input", { type: "range", min, max, step, value, "aria-label": name });
    const output = element("output", { "aria-live": "off" });
    function say() {
      output.textContent = words(+input.value);
      input.setAttribute("aria-valuetext", output.textContent);
    }
    input.addEventListener("input", () => { say(); changed(+input.value); });
    say();
    const label = element("label", { className: "demo-slider" }, element("span", {}, name), input, output);
    return { label, get value() { return +input.value; }, set value(next) { input.value = next; say(); } };
  }

  // A menu: options maps values to words.
  function menu(name, options, value, changed) {
    const select = element("select", {}, ...Object.entries(options).map(
      ([key, words]) => element("option", { value: key, selected: key === value }, words)));
    select.addEventListener("change", () => changed(select.value));
    return { label: element("label", {}, element("span", {}, name), select),
      get value() { return select.value; }, set value(next) { select.value = next; } };
  }

  function check(name, checked, changed) {
    const input = element("input", { type: "checkbox", checked });
    input.addEventListener("change", () => changed(input.checked));
    return { label: element("label", { className: "demo-check" }, input, element("span", {}, name)),
      get value() { return input.checked; } };
  }

  function button(words, pressed) {
    const made = element("button", { type: "button" }, words);
    made.addEventListener("click", pressed);
    return made;
  }

  // A canvas as wide as its place, `ratio` times as wide as high, drawn with coordinates in CSS pixels.
  function canvas(ratio, label, paint) {
    const surface = element("canvas", { role: "img", "aria-label": label });
    surface.style.aspectRatio = String(ratio);
    function draw() {
      const width = surface.clientWidth, height = surface.clientHeight, dense = devicePixelRatio || 1;
      if (!width) return;
      if (surface.width !== Math.round(width * dense)) {
        surface.width = Math.round(width * dense);
        surface.height = Math.round(height * dense);
      }
      const pen = surface.getContext("2d");
      pen.setTransform(dense, 0, 0, dense, 0, 0);
      pen.clearRect(0, 0, width, height);
      paint(pen, width, height);
    }
    new ResizeObserver(draw).observe(surface);
    return { surface, draw };
  }

  // A color of the page as it is now, light or dark: color("warm").
  function color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--demo-${name}`).trim();
  }

  // Shades a density over [-reach, reach]^2: the color, more opaque where density(x, y) is larger.
  function shade(pen, size, reach, density, name, places = 72) {
    const heights = new Float64Array(places * places);
    for (let row = 0; row < places; row++) {
      for (let column = 0; column < places; column++) {
        const at = (i) => ((i + 0.5) / places * 2 - 1) * reach;
        heights[row * places + column] = density(at(column), -at(row));
      }
    }
    const top = heights.reduce((a, b) => Math.max(a, b), 0), small = document.createElement("canvas");
    small.width = small.height = places;
    const inner = small.getContext("2d"), picture = inner.createImageData(places, places);
    const [r, g, b] = rgb(color(name));
    heights.forEach((height, i) => {
      picture.data.set([r, g, b, 150 * Math.sqrt(height / top)], 4 * i);
    });
    inner.putImageData(picture, 0, 0);
    pen.drawImage(small, 0, 0, size, size);
  }

  function rgb(hex) {
    return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  }

  // Calls frame(progress from 0 to 1) for `seconds`, unless stopped; a reader who wants no motion gets the end at once.
  function film(seconds, frame, ended) {
    let began = null, running = true;
    function tick(now) {
      if (!running) return;
      began ??= now;
      const progress = Math.min((now - began) / 1000 / seconds, 1);
      frame(progress);
      if (progress < 1) requestAnimationFrame(tick);
      else { running = false; ended(); }
    }
    if (still.matches) { frame(1); running = false; ended(); } else requestAnimationFrame(tick);
    return { stop() { running = false; }, get running() { return running; } };
  }

  function add(name, build) {
    for (const figure of document.querySelectorAll(`[data-demo="${name}"]`)) {
      const place = figure.querySelector(".demo-place");
      const wake = () => {
        if (figure.demo) return;
        figure.demo = build(place);
        figure.demo.draw();
      };
      new IntersectionObserver((seen, observer) => {
        if (seen.some((entry) => entry.isIntersecting)) { wake(); observer.disconnect(); }
      }, { rootMargin: "200px" }).observe(figure);
      addEventListener("beforeprint", wake);
      new MutationObserver(() => figure.demo?.draw())
        .observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    }
  }

  return { element, slider, menu, check, button, canvas, color, shade, film, add };
})();
