// Markdown as nodes: what a model says becomes elements and text, never markup. While a text grows, only its last block is drawn anew.

function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const FENCE = /^ {0,3}(```+|~~~+)(.*)$/, HEADING = /^ {0,3}(#{1,6}) +(.+?) *#*$/, RULE = /^ {0,3}([-*_])( *\1){2,} *$/, QUOTE = /^ {0,3}> ?/, ITEM = /^( *)([-*+]|\d{1,9}[.)]) +(.*)$/;
const BAR = /^ {0,3}\|?( *:?-+:? *\|)+( *:?-+:? *)?$/;

// The blocks of a text, each with the place at which it begins.
export function blocks(text) {
  const lines = text.split("\n"), found = [];
  for (let at = 0, offset = 0; at < lines.length;) {
    const first = at, line = lines[at];
    let kind = "paragraph";
    const fence = line.match(FENCE);
    if (!line.trim()) { offset += line.length + 1; at += 1; continue; }
    if (fence) {
      kind = "code";
      for (at += 1; at < lines.length && !(lines[at].trim().startsWith(fence[1]) && !lines[at].trim().slice(fence[1].length).trim()); at += 1);
      at += 1;
    } else if (HEADING.test(line)) { kind = "heading"; at += 1; }
    else if (RULE.test(line)) { kind = "rule"; at += 1; }
    else if (QUOTE.test(line)) { kind = "quote"; for (; at < lines.length && QUOTE.test(lines[at]); at += 1); }
    else if (ITEM.test(line)) { kind = "list"; for (at += 1; at < lines.length && (ITEM.test(lines[at]) || (lines[at].trim() && /^ /.test(lines[at])) || (!lines[at].trim() && (ITEM.test(lines[at + 1] ?? "") || /^ {2,}\S/.test(lines[at + 1] ?? "")))); at += 1); }
    else if (line.includes("|") && BAR.test(lines[at + 1] ?? "")) { kind = "table"; for (at += 2; at < lines.length && lines[at].includes("|"); at += 1); }
    else for (at += 1; at < lines.length && lines[at].trim() && !FENCE.test(lines[at]) && !HEADING.test(lines[at]) && !RULE.test(lines[at]) && !QUOTE.test(lines[at]) && !ITEM.test(lines[at]) && !(lines[at].includes("|") && BAR.test(lines[at + 1] ?? "")); at += 1);
    const source = lines.slice(first, at);
    found.push({ kind, lines: source, start: offset });
    offset += source.reduce((sum, one) => sum + one.length + 1, 0);
  }
  return found;
}

const INLINE = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*([^*\n]+)\*\*|__([^_\n]+)__|~~([^~\n]+)~~|(?<![*\w])\*([^*\s][^*\n]*)\*(?!\w)|(?<!\w)_([^_\s][^_\n]*)_(?!\w)|!?\[([^\]\n]+)\]\(([^()\s]+(?:\([^()\s]*\))?)(?: "[^"\n]*")?\)|(https?:\/\/[^\s<>"'`]+[^\s<>"'`.,;:!?)\]}])|\$\$([^$]+)\$\$|\$([^$\s](?:[^$\n]*[^$\s])?)\$(?!\d)|\\\((.+?)\\\)|\\\[([\s\S]+?)\\\]/g;

function link(address, words) {
  try {
    if (/^https?:$/.test(new URL(address).protocol)) return make("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow" }, words);
  } catch { /* no address */ }
  return null;
}

export function inline(parent, text) {
  let last = 0;
  for (const found of text.matchAll(INLINE)) {
    const [whole, , code, bold, bold2, struck, slant, slant2, words, address, bare, display, math, math2, display2] = found;
    let node = null;
    if (code !== undefined) node = make("code", {}, code.replace(/^ (.*\S.*) $/s, "$1"));
    else if (bold ?? bold2) { node = make("strong"); inline(node, bold ?? bold2); }
    else if (struck) { node = make("del"); inline(node, struck); }
    else if (slant ?? slant2) { node = make("em"); inline(node, slant ?? slant2); }
    else if (words) node = link(address, words);
    else if (bare) node = link(bare, bare);
    else if (display ?? math ?? math2 ?? display2) node = make("span", { class: display ?? display2 ? "math display" : "math" }, (display ?? math ?? math2 ?? display2).trim());
    if (!node) continue;
    parent.append(text.slice(last, found.index), node);
    last = found.index + whole.length;
  }
  parent.append(text.slice(last));
  return parent;
}

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((one) => one.trim().replaceAll("\\|", "|"));

function list(lines) {
  const first = lines[0].match(ITEM), ordered = /\d/.test(first[2]), depth = first[1].length;
  const node = make(ordered ? "ol" : "ul", ordered && parseInt(first[2], 10) !== 1 ? { start: String(parseInt(first[2], 10)) } : {});
  let inner = [];
  const close = () => {
    if (!inner.length) return;
    const item = make("li"), [head, ...rest] = inner;
    inline(item, head);
    const width = Math.min(...rest.filter((one) => one.trim()).map((one) => one.length - one.trimStart().length), 99);
    if (rest.length) for (const block of blocks(rest.map((one) => one.slice(Math.min(width, one.length))).join("\n"))) item.append(block.kind === "paragraph" ? inline(make("span"), ` ${block.lines.join(" ")}`) : drawn(block));
    node.append(item);
    inner = [];
  };
  for (const line of lines) {
    const item = line.match(ITEM);
    if (item && item[1].length <= depth + 1) { close(); inner.push(item[3]); } else inner.push(line);
  }
  close();
  return node;
}

// A block as a node; `copy` makes the button on code.
function drawn({ kind, lines }, copy) {
  if (kind === "code") {
    const fence = lines[0].match(FENCE)[1], closed = lines.length > 1 && lines.at(-1).trim() === fence;
    const source = lines.slice(1, closed ? -1 : undefined).join("\n"), node = make("pre", { tabindex: "0" }, make("code", {}, source));
    return copy ? make("div", { class: "source" }, node, copy(source)) : node;
  }
  if (kind === "heading") { const [, marks, words] = lines[0].match(HEADING); return inline(make(`h${Math.min(6, marks.length + 1)}`), words); }
  if (kind === "rule") return make("hr");
  if (kind === "quote") { const node = make("blockquote"); for (const block of blocks(lines.map((line) => line.replace(QUOTE, "")).join("\n"))) node.append(drawn(block, copy)); return node; }
  if (kind === "list") return list(lines);
  if (kind === "table") {
    const [head, bar, ...rows] = lines.map(cells), sides = bar.map((one) => one.endsWith(":") ? (one.startsWith(":") ? "center" : "right") : "left");
    const row = (tag, values) => make("tr", {}, ...head.map((_, place) => inline(make(tag, { class: sides[place] ?? "left" }), values[place] ?? "")));
    return make("div", { class: "table", tabindex: "0" }, make("table", {}, make("thead", {}, row("th", head)), make("tbody", {}, ...rows.map((values) => row("td", values)))));
  }
  return inline(make("p"), lines.join("\n"));
}

const grown = new WeakMap(); // what was drawn into a node, and where its last block begins

// Draw a text into a node. A text that only grew keeps all its blocks but the last.
export function draw(node, text, copy) {
  const known = grown.get(node), from = known && node.lastChild === known.last && text.startsWith(known.text) ? known.start : 0;
  const found = blocks(text.slice(from));
  if (!from) node.replaceChildren();
  else node.lastChild?.remove();
  for (const block of found) node.append(drawn(block, copy));
  grown.set(node, { text, last: node.lastChild, start: found.length ? from + found.at(-1).start : from });
}
