// The page of mote-fast serve. Names and messages enter as text, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const state = { file: null, token: "", limits: null, running: null, recorder: null };

// ---- talking to the server

async function ask(path, fields) {
  const options = { headers: {} };
  if (state.token) options.headers.Authorization = `Bearer ${state.token}`;
  if (fields) {
    options.method = "POST";
    options.body = new FormData();
    for (const [name, value] of fields) options.body.append(name, value);
    state.running = new AbortController();
    options.signal = state.running.signal;
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer; it may have ended, or cut off the upload.");
  }
  if (response.ok) return response;
  let message = `The server answered ${response.status}.`;
  try {
    message = (await response.json()).error;
  } catch { /* no JSON: the status says enough */ }
  const later = response.headers.get("Retry-After");
  const error = new Error(later ? `${message} (in ${later} s)` : message);
  error.status = response.status;
  throw error;
}

function tell(message) {
  $("problem").textContent = message;
  $("problem").hidden = !message;
}

// Runs a request with the buttons off; what goes wrong is told in words.
async function attempt(doing, work) {
  tell("");
  busy(doing);
  try {
    await work();
  } catch (error) {
    if (error.name !== "AbortError") tell(error.message);
  } finally {
    state.running = null;
    busy("");
  }
}

function busy(doing) {
  $("state").textContent = doing;
  $("stop").hidden = !doing;
  for (const id of ["classify", "timeline", "like"]) $(id).disabled = Boolean(doing) || !state.file;
}

// ---- the video

function choose(file, name) {
  tell("");
  clear();
  if (file.size > state.limits.upload_bytes) {
    tell(`${name} has ${(file.size / 1e6).toFixed(1)} MB, over the limit of ${state.limits.upload_bytes / 1e6} MB; cut or re-encode it.`);
    return;
  }
  state.file = new File([file], name, { type: file.type });
  $("chosen").textContent = name;
  const player = $("player");
  if (player.src) URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(state.file);
  player.hidden = false;
  $("unplayable").hidden = true;
  busy("");
}

function clear() {
  for (const id of ["ranked", "segments", "track"]) $(id).replaceChildren();
  $("track").hidden = $("rejection").hidden = true;
}

async function record() {
  if (state.recorder) {
    state.recorder.stop();
    return;
  }
  let camera;
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: true });
  } catch (error) {
    tell(`The camera cannot be used: ${error.message}`);
    return;
  }
  const player = $("player");
  const parts = [];
  state.recorder = new MediaRecorder(camera);
  state.recorder.ondataavailable = (event) => parts.push(event.data);
  state.recorder.onstop = () => {
    const suffix = state.recorder.mimeType.includes("mp4") ? "mp4" : "webm";
    state.recorder = null;
    $("record").textContent = "Record";
    player.srcObject = null;
    for (const track of camera.getTracks()) track.stop();
    choose(new Blob(parts, { type: parts[0]?.type }), `recording.${suffix}`);
  };
  $("record").textContent = "Stop recording";
  player.srcObject = camera;
  player.hidden = false;
  player.play();
  state.recorder.start();
}

// ---- results

function lines(id) {
  return $(id).value.split("\n").map((line) => line.trim()).filter(Boolean);
}

function element(kind, text, name) {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

function bar(text, share, number) {
  const row = document.createElement("li");
  const length = element("span", "", "bar");
  length.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  row.append(length, element("span", text), element("span", number, "number"));
  return row;
}

function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}

// What has none of the labels, as a field of the request.
function rejection(name) {
  const kind = document.querySelector("input[name=background]:checked").value;
  return kind ? [[name, kind === "words" ? lines("background").join("\n") : kind]] : [];
}

async function classify() {
  const fields = [["video", state.file], ["labels", lines("labels").join("\n")], ["topk", "10"], ...rejection("reject")];
  const found = await (await ask("/v1/classify", fields)).json();
  clear();
  $("rejection").textContent = "None of these labels.";
  $("rejection").hidden = found.predictions.length > 0;
  $("ranked").replaceChildren(
    ...found.predictions.map((each) => bar(each.label, each.score, `${(100 * each.score).toFixed(1)} %`)),
  );
}

async function timeline() {
  const background = rejection("background");
  const fields = [["video", state.file], ["labels", lines("labels").join("\n")], ...background];
  const found = await (await ask("/v1/timeline", fields)).json();
  clear();
  const names = [...new Set(found.segments.map((each) => each.label))];
  const track = $("track");
  track.style.height = `${1.6 * Math.max(1, names.length) + 0.2}rem`;
  track.hidden = false;
  for (const each of found.segments) {
    const mark = element("button", each.label);
    mark.type = "button";
    mark.title = `${clock(each.start)} to ${clock(each.end)}: ${each.label}`;
    mark.style.left = `${(100 * each.start) / found.duration}%`;
    mark.style.width = `${(100 * (each.end - each.start)) / found.duration}%`;
    mark.style.top = `${1.6 * names.indexOf(each.label) + 0.1}rem`;
    mark.onclick = () => jump(each.start);
    track.append(mark);
    const row = document.createElement("li");
    const button = element("button", "");
    button.type = "button";
    button.append(element("span", `${clock(each.start)} to ${clock(each.end)}  ${each.label}`), element("span", each.score.toFixed(2), "number"));
    button.onclick = mark.onclick;
    row.append(button);
    $("segments").append(row);
  }
  const now = element("span", "", "now");
  track.append(now);
  $("player").ontimeupdate = () => { now.style.left = `${(100 * $("player").currentTime) / found.duration}%`; };
  const none = found.segments.length ? "" : "None of these labels at any time. ";
  $("rejection").textContent = `${none}${found.rejection}`;
  $("rejection").hidden = !(none || background.length);
}

function jump(seconds) {
  $("player").currentTime = seconds;
  $("player").focus();
}

async function search(fields) {
  const found = await (await ask("/v1/search", fields)).json();
  $("hits").replaceChildren(...found.hits.map((hit) => {
    const span = hit.start === null || hit.end === null ? "" : ` ${clock(hit.start)} to ${clock(hit.end)}`;
    return bar(hit.id + span, hit.score, hit.score.toFixed(3));
  }));
  if (!found.hits.length) $("hits").append(element("li", "The index has no videos."));
}

// ---- the start

async function example(each) {
  $("labels").value = each.labels.join("\n");
  choose(await (await ask(each.url)).blob(), each.name);
}

async function start() {
  let about;
  try {
    about = await (await ask("/v1/info")).json();
  } catch (error) {
    const closed = error.status === 401;
    $("door").hidden = !closed;
    tell(closed && !state.token ? "" : error.message);
    return;
  }
  tell("");
  $("door").hidden = true;
  $("work").hidden = false;
  state.limits = about.limits;
  $("model").textContent = about.model;
  $("caution").textContent = about.caution ?? "";
  $("caution").hidden = !about.caution;
  $("labels").value = (about.labels ?? []).join("\n");
  $("search").hidden = !about.index;
  if (about.index) $("search-title").firstChild.textContent = `Search the index of ${about.index.videos} videos`;
  $("record").hidden = !(navigator.mediaDevices && window.MediaRecorder);
  $("examples").hidden = !about.examples.length;
  $("examples").replaceChildren(...about.examples.map((each) => {
    const button = element("button", each.name.replace(/\.\w+$/, "").replaceAll("_", " "));
    button.type = "button";
    button.onclick = () => attempt("Fetching the example", () => example(each));
    return button;
  }));
  busy("");
}

$("door").onsubmit = (event) => {
  event.preventDefault();
  state.token = $("token").value.trim();
  start();
};
$("file").onchange = () => {
  const [file] = $("file").files;
  // The same file may be chosen again.
  if (file) choose(file, file.name);
  $("file").value = "";
};
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    const file = kind === "drop" && event.dataTransfer.files[0];
    if (file && state.limits) choose(file, file.name);
  });
}
$("player").onerror = () => { $("unplayable").hidden = false; $("player").hidden = true; };
$("record").onclick = record;
$("classify").onclick = () => attempt("Ranking the labels", classify);
$("timeline").onclick = () => attempt("Looking through the video", timeline);
$("stop").onclick = () => state.running?.abort();
$("ask").onsubmit = (event) => {
  event.preventDefault();
  attempt("Searching", () => search([["words", $("words").value]]));
};
$("like").onclick = () => attempt("Searching", () => search([["video", state.file]]));
start();
