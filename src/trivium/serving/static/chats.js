// Chats as the browser keeps them: trees of messages, so that no version of any message is lost. A window that keeps nothing has them until it is closed.

const memory = new Map();
let opening = null;

function open() {
  opening ??= new Promise((done) => {
    let request;
    try { request = indexedDB.open("trivium-chats", 1); } catch { done(null); return; }
    request.onupgradeneeded = () => request.result.createObjectStore("chats", { keyPath: "id" });
    request.onsuccess = () => done(request.result);
    request.onerror = request.onblocked = () => done(null);
  });
  return opening;
}

async function inside(mode, act) {
  const database = await open();
  if (!database) return null;
  return new Promise((done, failed) => {
    const transaction = database.transaction("chats", mode), request = act(transaction.objectStore("chats"));
    transaction.oncomplete = () => done(request.result);
    transaction.onerror = transaction.onabort = () => failed(transaction.error);
  });
}

export const keeps = () => { try { return localStorage.getItem("keep-chats") !== "no"; } catch { return false; } };
export function keep(on) { try { localStorage.setItem("keep-chats", on ? "yes" : "no"); } catch { /* a private window keeps none anyway */ } }

export async function all() {
  const found = (keeps() && await inside("readonly", (store) => store.getAll()).catch(() => null)) || [];
  const every = new Map([...found.map((chat) => [chat.id, chat]), ...memory]);
  return [...every.values()].sort((one, other) => other.changed - one.changed);
}
export async function save(chat) {
  chat.changed = Date.now();
  memory.set(chat.id, chat);
  if (keeps()) await inside("readwrite", (store) => store.put(structuredClone(chat))).catch(() => {});
}
export async function remove(id) {
  memory.delete(id);
  await inside("readwrite", (store) => store.delete(id)).catch(() => {});
}
export async function forget() {
  memory.clear();
  await inside("readwrite", (store) => store.clear()).catch(() => {});
}

// A new chat. `nodes` have an id, the `parent` that they answer, a `role` and `content`, and what else is known of them.
export const begin = () => ({ id: crypto.getRandomValues(new Uint32Array(3)).join("-"), title: "", changed: Date.now(), system: "", nodes: [], leaf: null });

export function add(chat, node) {
  const made = { id: chat.nodes.length + 1, parent: chat.leaf, ...node };
  chat.nodes.push(made);
  chat.leaf = made.id;
  if (!chat.title && made.role === "user") chat.title = words(made.content).slice(0, 80);
  return made;
}
export const node = (chat, id) => chat.nodes.find((one) => one.id === id);
// From the first message to the one that is shown last.
export function path(chat, leaf = chat.leaf) {
  const found = [];
  for (let at = node(chat, leaf); at; at = node(chat, at.parent)) found.unshift(at);
  return found;
}
export const versions = (chat, one) => chat.nodes.filter((other) => other.parent === one.parent && other.role === one.role);
// The last message below one, along its newest answers.
export function below(chat, one) {
  for (let at = one; ;) {
    const next = chat.nodes.filter((other) => other.parent === at.id).at(-1);
    if (!next) return at.id;
    at = next;
  }
}
export const words = (content) => typeof content === "string" ? content : content.filter((part) => part.type === "text").map((part) => part.text).join("\n");

// What the model is sent: an answer without a word is no message, and what was asked before it stands with what was asked next.
export function conversation(chat, leaf = chat.leaf) {
  const sent = [];
  for (const one of path(chat, leaf)) {
    if (one.role === "assistant" && !one.content) continue;
    const last = sent.at(-1);
    if (last?.role === "user" && one.role === "user") {
      const parts = (content) => typeof content === "string" ? [{ type: "text", text: content }] : content;
      last.content = typeof last.content === "string" && typeof one.content === "string" ? `${last.content}\n\n${one.content}` : [...parts(last.content), ...parts(one.content)];
    } else sent.push({ role: one.role, content: one.content });
  }
  return sent;
}

export const asMarkdown = (chat, said) => [`# ${chat.title}`, ...(chat.system ? [`> ${chat.system.replaceAll("\n", "\n> ")}`] : []),
  ...path(chat).map((one) => `## ${one.role === "user" ? said : one.model}\n\n${words(one.content)}`)].join("\n\n") + "\n";
