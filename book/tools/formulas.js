// Sets formulas as HTML: [[tex, whether it stands alone], ...] comes in as JSON, {html: [...], css} goes out.
// Read by formulas.py; MathJax is found through NODE_PATH.
require("mathjax").init({
  loader: { load: ["input/tex-full", "output/chtml", "adaptors/liteDOM", "a11y/assistive-mml"] },
  // One size, whether or not the page's own typeface has come; of the style only what these formulas need
  chtml: { fontURL: process.argv[2], scale: 1.07, matchFontHeight: false, adaptiveCSS: true },
}).then((MathJax) => {
  const formulas = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const tree = MathJax.startup.adaptor;
  const html = formulas.map(([tex, display]) => tree.outerHTML(MathJax.tex2chtml(tex, { display })));
  process.stdout.write(JSON.stringify({ html, css: tree.textContent(MathJax.chtmlStylesheet()) }));
}).catch((error) => { console.error(error); process.exit(1); });
