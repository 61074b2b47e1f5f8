/* <minidiff-playground>: a form whose prompt becomes a picture on the reader's own machine.
 *
 * The page holds the form (book/tools/playground.html); this script gives it life. It is a classic script, so that it
 * also runs in a page opened as a file and can say there why the rest does not. Nothing is loaded before the first click.
 * Hook for tests and experiments: `element.start`, a Float32Array of 3 * 64 * 64 normal numbers (channel, row, column),
 * is the noise to begin with in place of the seed's. `element.frames` are the states of the last drawing.
 */
(function () {
  "use strict";
  const ENLARGED = 8; // pixels of the PNG per pixel of the model
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
  const here = (address) => new URL(address, document.baseURI).href;

  /* Why this browser cannot draw, or "" if it can. */
  function obstacle() {
    if (location.protocol === "file:")
      return "This page was opened as a file, and browsers let such pages load no model. " +
        "In a copy of the repository, run “make book” and open the address that it prints.";
    if (typeof WebAssembly !== "object" || typeof Worker !== "function")
      return "This browser has no WebAssembly or no workers, in which the model runs. A current Firefox, Chrome, Edge or Safari has both.";
    return "";
  }

  class Playground extends HTMLElement {
    connectedCallback() {
      this.parts = Object.fromEntries([...this.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
      const { form, time, belief, words, save, share } = this.parts;
      this.start = null;
      this.frames = [];
      form.addEventListener("submit", (event) => { event.preventDefault(); this.act(); });
      form.addEventListener("input", () => this.label());
      for (const control of [time, belief, words]) control.addEventListener("input", () => this.show());
      save.addEventListener("click", () => this.save());
      share.addEventListener("click", () => this.share());
      window.addEventListener("hashchange", () => this.follow());
      this.addEventListener("click", ({ target }) => { // the same link once more changes no hash
        if (target.closest("a")?.hash === location.hash) this.follow();
      });
      this.restore();
      this.label();
      if (obstacle()) { this.fail(obstacle()); this.parts.draw.disabled = true; }
    }

    /* --- settings ---------------------------------------------------------------------------------------------- */

    get settings() {
      const { prompt, negative, style, steps, guidance, seed } = Object.fromEntries(new FormData(this.parts.form));
      return { prompt, negative, style, steps: Number(steps), guidance: Number(guidance), seed: Number(seed) };
    }

    /* Read the settings from the address; what it does not say, or says wrongly, gets its default. */
    restore() {
      const said = new URLSearchParams(location.hash.slice(1));
      if (!said.has("prompt")) return false;
      for (const control of this.parts.form.elements) {
        if (!control.name) continue;
        const standard = control.defaultValue ?? "", wanted = said.get(control.name) ?? standard;
        control.value = wanted;
        const moved = control.type === "range" && Number(control.value) !== Number(wanted); // a slider takes what is nearest
        if (moved || !control.checkValidity() || (control.tagName === "SELECT" && control.selectedIndex < 0)) control.value = standard;
      }
      this.label();
      return true;
    }

    /* A link of the gallery was chosen. It draws at once where the model is already here; otherwise nothing is loaded yet. */
    follow() {
      if (!this.restore()) return;
      this.reveal(this.parts.form);
      this.parts.draw.focus({ preventScroll: true });
      if (this.ready && !this.drawing) this.act();
      else if (!this.drawing) this.say("Filled in. Press Draw.");
    }

    reveal(part) {
      part.scrollIntoView({ behavior: still() ? "auto" : "smooth", block: "nearest" });
    }

    label() {
      for (const range of this.parts.form.querySelectorAll("input[type=range]")) range.previousElementSibling.value = range.value;
    }

    async share() {
      history.replaceState(null, "", "#" + new URLSearchParams(this.settings).toString().replaceAll("+", "%20"));
      const copied = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
      this.say(copied ? "Link copied." : "The address of this page now carries the settings.");
    }

    /* --- drawing ------------------------------------------------------------------------------------------------ */

    act() {
      if (this.drawing && this.ready) return this.worker.postMessage({ stop: true });
      if (this.drawing) return this.halt("Stopped.");
      this.began = performance.now();
      this.drawing = true;
      this.parts.draw.textContent = "Stop";
      this.parts.failure.hidden = true;
      const draw = { ...this.settings, start: this.start };
      if (this.ready) return this.begin(draw);
      this.say("Downloading the model and what runs it.");
      this.parts.progress.hidden = false;
      this.parts.progress.value = 0;
      this.worker = new Worker(here(this.dataset.worker), { type: "module" });
      this.worker.onerror = () => this.fail("The playground's program could not be loaded. Is the page complete, and the connection there?");
      this.worker.onmessage = ({ data }) => {
        for (const kind of ["loading", "ready", "words", "step", "done", "failed"])
          if (kind in data) this[`on_${kind}`](data, draw);
      };
      this.worker.postMessage({ load: { model: here(this.dataset.model), vendor: here(this.dataset.vendor) } });
    }

    begin(draw) {
      this.frames = [];
      this.asked = draw;
      this.say("Drawing.");
      this.worker.postMessage({ draw });
    }

    on_loading({ loading }) {
      const { progress, detail } = this.parts;
      progress.value += loading;
      const whole = progress.value >= progress.max;
      detail.textContent = whole ? "Starting it." : `${megabytes(progress.value)} of ${megabytes(progress.max)} MB`;
    }

    on_ready(_, draw) {
      this.ready = true;
      this.parts.progress.hidden = true;
      this.begin(draw);
    }

    on_words({ words, cut }) {
      const choices = [{ word: "the whole picture", places: [] }, ...words].map(({ word, places }, i) => {
        const choice = document.createElement("label"), radio = document.createElement("input");
        Object.assign(radio, { type: "radio", name: "word", value: places.join(), checked: i === 0 });
        choice.append(radio, word);
        return choice;
      });
      const { words: list } = this.parts;
      list.replaceChildren(list.firstElementChild, ...choices);
      const end = cut.length > 60 ? `${cut.slice(0, 60)}…` : cut;
      const { prompt, style } = this.asked;
      this.remark = cut ? ` Too long: “${end}” was not read.` : prompt.trim() || style ? "" : " Nothing was asked for, so it may be anything.";
    }

    on_step(frame) {
      this.frames.push(frame);
      const { result, time, detail } = this.parts;
      result.hidden = false;
      if (frame.step === 1) this.reveal(result);
      time.max = frame.step; // before the value, which it limits
      time.value = frame.step;
      detail.textContent = `step ${frame.step} of ${frame.steps}, ${frame.seconds.toFixed(2)} s a step`;
      if (!still() || frame.step === frame.steps) this.show(); // for who wants no motion, when it is done
    }

    on_done() {
      const seconds = (performance.now() - this.began) / 1000, count = this.frames.length;
      this.rest();
      this.show();
      const steps = `${count} step${count === 1 ? "" : "s"}`, whole = count === this.asked.steps;
      this.say(whole ? `Drawn in ${seconds.toFixed(1)} s, ${steps}.${this.remark}` : `Stopped after ${steps} of ${this.asked.steps}.`);
      this.dispatchEvent(new CustomEvent("drawn", { detail: { seconds, settings: this.asked } }));
    }

    on_failed({ failed }) {
      this.fail(failed);
    }

    /* Give up, and be ready for another try from the beginning. */
    halt(sentence) {
      this.worker?.terminate();
      this.ready = false;
      this.rest();
      this.parts.progress.hidden = true;
      this.say(sentence);
    }

    fail(sentence) {
      this.halt("");
      this.parts.failure.textContent = sentence;
      this.parts.failure.hidden = false;
    }

    rest() {
      this.drawing = false;
      this.parts.draw.textContent = "Draw";
      this.parts.detail.textContent = "";
    }

    say(sentence) {
      this.parts.status.textContent = sentence;
    }

    /* --- looking ------------------------------------------------------------------------------------------------ */

    /* Paint the state that the slider names, and over it, as a spotlight, where the network looked for the chosen word. */
    show() {
      const { picture, spotlight, time, step, belief, words } = this.parts;
      const frame = this.frames[time.value - 1];
      if (!frame) return;
      step.value = `${frame.step} of ${frame.steps}`;
      this.paint(picture, belief.checked ? frame.x0 : frame.x);
      const chosen = words.querySelector("input:checked");
      picture.setAttribute("aria-label", `${this.asked.prompt.trim() || "no prompt"}, after step ${frame.step} of ${frame.steps}`);
      spotlight.hidden = !chosen?.value;
      if (chosen?.value) this.shine(spotlight, frame, chosen.value.split(",").map(Number));
    }

    /* x in [-1, 1], channel after channel, to pixels. Clamped arrays round halves to even, as torch does. */
    paint(canvas, x) {
      const area = x.length / 3, side = Math.sqrt(area);
      canvas.width = canvas.height = side;
      const image = new ImageData(side, side);
      for (let i = 0; i < area; i++) {
        for (let channel = 0; channel < 3; channel++) image.data[4 * i + channel] = (x[channel * area + i] + 1) * 127.5;
        image.data[4 * i + 3] = 255;
      }
      canvas.getContext("2d").putImageData(image, 0, 0);
    }

    /* attention: for each place of a side x side grid, the shares of all tokens; column 0 is the word that is always there. */
    shine(canvas, { attention, side }, places) {
      const columns = attention.length / side ** 2;
      canvas.width = canvas.height = side;
      const map = Array.from({ length: side ** 2 }, (_, i) =>
        places.reduce((sum, place) => sum + attention[i * columns + 1 + place], 0));
      const most = Math.max(...map), least = Math.min(...map);
      const image = new ImageData(side, side);
      map.forEach((share, i) => { image.data[4 * i + 3] = 210 * (1 - (share - least) / (most - least || 1)); });
      canvas.getContext("2d").putImageData(image, 0, 0);
    }

    save() {
      const { picture } = this.parts, large = document.createElement("canvas");
      large.width = large.height = picture.width * ENLARGED;
      const context = large.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(picture, 0, 0, large.width, large.height);
      const link = document.createElement("a");
      link.download = (this.asked.prompt.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["picture"]).join("-").slice(0, 60) + ".png";
      link.href = large.toDataURL("image/png");
      link.click();
      this.say(`${link.download} saved.`);
    }
  }

  customElements.define("minidiff-playground", Playground);
})();
