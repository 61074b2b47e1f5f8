/* The playground's engine, in a thread of its own so that the page stays alive while it computes.
 *
 * In:  { load: { model, vendor } }, addresses of folders; then { draw: settings } or { stop: true }.
 * Out: { loading: bytes so far }, { ready: seconds }, { words, cut }, { step, steps, x, x0, attention, side, seconds },
 *      { done: seconds }, { failed: a sentence }.
 */
import { Prompts } from "./prompts.js";
import { guide, interpretFlow, noise, sample, timeGrid } from "./sampler.js";

const FORMAT = 2; // of the manifest: minidiff.export.FORMAT
let engine = null, stopped = false;

onmessage = async ({ data }) => {
  try {
    if (data.stop) stopped = true;
    if (data.load) await load(data.load);
    if (data.draw) await draw(data.draw);
  } catch (error) {
    postMessage({ failed: error.message });
  }
};

/* --- loading ------------------------------------------------------------------------------------------------- */

async function load({ model, vendor }) {
  const began = performance.now();
  const manifest = JSON.parse(new TextDecoder().decode(await fetched(`${model}manifest.json`)));
  const { format, files, schedule, parameterization, clip } = manifest;
  if (format !== FORMAT) throw new Error(`The model has format ${format}, this page reads ${FORMAT}: export it anew.`);
  if (schedule !== "flow" || parameterization !== "flow" || clip !== null)
    throw new Error(`This page draws with flow models; this one has schedule ${schedule}, target ${parameterization}.`);

  const named = (name) => fetched(model + name, files[name]);
  const [wasmBinary, tokenizer, ...graphs] = await Promise.all([
    fetched(`${vendor}onnxruntime/ort-wasm-simd-threaded.wasm`),
    ...["tokenizer.json", "text.onnx", "unet.onnx"].map(named),
  ]);
  const { Tokenizer } = await imported(`${vendor}tokenizers/tokenizers.min.mjs`);
  const ort = await imported(`${vendor}onnxruntime/ort.wasm.min.mjs`);
  // One thread: more need headers that servers of static files, such as GitHub Pages, do not send.
  Object.assign(ort.env.wasm, { wasmBinary, wasmPaths: `${vendor}onnxruntime/`, numThreads: 1 });
  const [text, unet] = await Promise.all(
    graphs.map((graph) => ort.InferenceSession.create(graph, { executionProviders: ["wasm"] })),
  );
  const prompts = new Prompts(Tokenizer, JSON.parse(new TextDecoder().decode(tokenizer)), manifest);
  engine = { ort, text, unet, prompts, manifest };
  postMessage({ ready: (performance.now() - began) / 1000 });
}

/* The bytes of a file; with what the manifest says of it, a file that is not whole is refused. */
async function fetched(address, expected) {
  const name = address.split("/").pop();
  // A renewed file gets a new address, so that no cache mixes old with new.
  const answer = await fetch(expected ? `${address}?${expected.sha256.slice(0, 12)}` : address).catch(() => null);
  if (!answer?.ok) throw new Error(`The file ${name} could not be loaded (${answer ? answer.status : "no connection"}).`);
  const parts = [];
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read().catch(() => { throw new Error(`The connection broke while ${name} was loading.`); });
    if (done) break;
    parts.push(value);
    postMessage({ loading: value.length });
  }
  const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
  if (expected && (bytes.length !== expected.bytes || ((await sha256(bytes)) ?? expected.sha256) !== expected.sha256))
    throw new Error(`The file ${name} is damaged, or of another model than the manifest: export the model anew.`);
  return bytes;
}

/* In hexadecimal; undefined where the browser computes none, which is on pages that came without TLS: there the size must do. */
async function sha256(bytes) {
  if (!crypto.subtle) return undefined;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const imported = (address) =>
  import(address).catch(() => { throw new Error(`The program ${address.split("/").pop()} could not be loaded.`); });

/* --- drawing ------------------------------------------------------------------------------------------------- */

/* settings: prompt, negative, style ("" for none), steps, guidance, seed; start: noise to begin with, in place of the seed's. */
async function draw({ prompt, negative, style, steps, guidance, seed, start }) {
  const began = performance.now();
  const { prompts, manifest: { size, shift } } = engine;
  stopped = false;
  const said = prompts.inStyle(prompt, style);
  postMessage({ words: prompts.words(said), cut: prompts.cut(said) || prompts.cut(negative) });
  const conditions = [await condition(said)];
  if (guidance !== 1) conditions.push(await condition(negative));
  const network = unet(conditions);
  const denoise = async (x_t, t) => {
    const { outputs, ...looked } = await network(x_t, t);
    const [x0, x0_null] = outputs.map((output) => interpretFlow(output, x_t, t));
    return { ...looked, x0: x0_null ? guide(x0, x0_null, guidance) : x0 };
  };
  let step = 0, last = performance.now();
  for await (const state of sample(denoise, start ?? noise(seed, 3 * size * size), timeGrid(steps, shift))) {
    const now = performance.now();
    postMessage({ ...state, step: ++step, steps, seconds: (now - last) / 1000 });
    last = now;
    await new Promise((resolve) => setTimeout(resolve)); // lets a { stop } in
    if (stopped) break;
  }
  postMessage({ done: (performance.now() - began) / 1000 });
}

/* What the network is told: { tokens, mask, pooled }. No words are no condition, all zeros, as Condition.drop makes it. */
async function condition(prompt) {
  const { ort, text, prompts, manifest: { context, text_dim, pooled_dim } } = engine;
  const encoded = prompts.encode(prompt);
  if (!encoded)
    return { tokens: new Float32Array(context * text_dim), mask: new Uint8Array(context), pooled: new Float32Array(pooled_dim) };
  const mask = Uint8Array.from(encoded.mask);
  const { tokens, pooled } = await text.run({
    ids: new ort.Tensor("int64", BigInt64Array.from(encoded.ids, BigInt), [1, context]),
    mask: new ort.Tensor("bool", mask, [1, context]),
  });
  return { tokens: tokens.data, mask, pooled: pooled.data };
}

/* The U-Net, asked about the same x_t under every condition at once: outputs, one per condition, and where the first looked. */
function unet(conditions) {
  const { ort, unet, manifest: { size, context, text_dim, pooled_dim } } = engine;
  const rows = conditions.length;
  const stacked = (type, parts, ...shape) => {
    const all = new parts[0].constructor(parts.length * parts[0].length);
    parts.forEach((part, i) => all.set(part, i * part.length));
    return new ort.Tensor(type, all, [parts.length, ...shape]);
  };
  const fixed = {
    tokens: stacked("float32", conditions.map((c) => c.tokens), context, text_dim),
    mask: stacked("bool", conditions.map((c) => c.mask), context),
    pooled: stacked("float32", conditions.map((c) => c.pooled), pooled_dim),
  };
  return async (x_t, t) => {
    const x = stacked("float32", Array(rows).fill(x_t), 3, size, size);
    const times = new ort.Tensor("float32", new Float32Array(rows).fill(t), [rows]);
    const { output, attention } = await unet.run({ x, t: times, ...fixed });
    const outputs = conditions.map((_, i) => output.data.subarray(i * x_t.length, (i + 1) * x_t.length));
    return { outputs, attention: attention.data.slice(0, attention.data.length / rows), side: Math.sqrt(attention.dims[1]) };
  };
}
