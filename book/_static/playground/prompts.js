/* From a prompt to token ids: what MiniClip.tokenize and TextToImage.condition do in Python, from the same tokenizer.json. */

const blank = (text) => !/[^\s\x1c-\x1f\x85]/.test(text); // what Python's strip() takes away
const SPACES = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/u; // Python's split()
const joins = (piece) => !/^[^\p{L}\p{N}\uFFFD]+$/u.test(piece); // a letter, a digit, or a part of an emoji

export class Prompts {
  /* Tokenizer: the class of @huggingface/tokenizers. json: tokenizer.json. manifest: what minidiff export wrote. */
  constructor(Tokenizer, json, { context, tokens, styles }) {
    // Without added tokens, who types "<eos>" means these five letters, as with encode_special_tokens in Python.
    this.tokenizer = new Tokenizer({ ...json, added_tokens: [] }, { clean_up_tokenization_spaces: false });
    this.room = context - 2; // what begin and end leave
    Object.assign(this, { context, tokens, styles });
  }

  pieces(prompt) {
    const even = prompt.split(SPACES).filter(Boolean).join(" ");
    return even ? this.tokenizer.encode(even, { add_special_tokens: false }).ids : [];
  }

  text(ids) {
    return ids.length ? this.tokenizer.decode(ids).trim() : "";
  }

  /* The end of the prompt that does not fit into the context, "" if all of it does. */
  cut(prompt) {
    return this.text(this.pieces(prompt).slice(this.room));
  }

  /* The prompt with the words of a style; where both do not fit, the style goes first: better lose the prompt's end. */
  inStyle(prompt, style) {
    if (!style) return prompt;
    const words = this.styles[style];
    const said = blank(prompt) ? words : `${prompt}, ${words}`;
    return this.cut(said) ? `${words}, ${prompt}` : said;
  }

  /* Token ids padded to the whole context, and which of them count; null for an empty prompt, which is no condition. */
  encode(prompt) {
    if (blank(prompt)) return null;
    const ids = [this.tokens.begin, ...this.pieces(prompt).slice(0, this.room), this.tokens.end];
    const padded = Array.from({ length: this.context }, (_, i) => ids[i] ?? this.tokens.pad);
    return { ids: padded, mask: padded.map((_, i) => i < ids.length) };
  }

  /* The words of a prompt with the places of their tokens: [{ word: "heart", places: [2, 3] }, ...]. Place 0 is <begin>. */
  words(prompt) {
    const ids = this.pieces(prompt).slice(0, this.room);
    const groups = [];
    ids.forEach((id, i) => {
      const token = this.tokenizer.id_to_token(id), piece = this.text([id]);
      const before = groups.at(-1);
      if (before && before.joins && joins(piece) && !token.startsWith("Ġ")) before.places.push(i + 1);
      else groups.push({ places: [i + 1], joins: joins(piece) });
    });
    const words = groups.map(({ places }) => ({ word: this.text(places.map((place) => ids[place - 1])), places }));
    return words.filter(({ word }) => /[\p{L}\p{N}\p{So}]/u.test(word));
  }
}
