// The console: reads what the server says of itself, and changes nothing.

const EVERY_MS = 3000;
// What each volume is the server asks of the store: two requests a volume.
const VOLUMES_EVERY_MS = 60_000;
const VOLUMES = 100;
const COMMITS = 50;

const $ = (id) => document.getElementById(id);
const state = { after: '', listed: 0, volume: undefined, head: 0, oldest: 0, watch: null, drawn: 0 };

// --- Words

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
function size(bytes) {
  let unit = 0;
  while (bytes >= 1024 && unit + 1 < UNITS.length) {
    bytes /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? bytes : bytes.toFixed(1)} ${UNITS[unit]}`;
}
const number = (n) => n.toLocaleString('en');
function ago(ms) {
  const seconds = Math.max(0, Math.round((Date.now() - ms) / 1000));
  for (const [unit, length] of [['d', 86400], ['h', 3600], ['min', 60]]) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${unit} ago`;
  }
  return `${seconds} s ago`;
}

/** An element with its text or children. Nothing that comes from a server is ever read as markup. */
function el(tag, content, attributes = {}) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...(Array.isArray(content) ? content : [content ?? '']));
  return made;
}
function moment(ms) {
  if (!ms) return el('span', '–', { class: 'quiet' });
  const date = new Date(ms);
  return el('time', ago(ms), { datetime: date.toISOString(), title: date.toISOString() });
}
const cell = (content, attributes) => el('td', content, attributes);
const figure = (content) => el('td', content, { class: 'n' });
function facts(list, pairs) {
  list.replaceChildren(...pairs.filter(Boolean).map(([name, value]) => el('div', [el('dt', name), el('dd', value)])));
}
function rows(body, made, empty) {
  // Who has the focus keeps it.
  const focused = body.contains(document.activeElement) ? document.activeElement.getAttribute('href') : null;
  body.replaceChildren(...made);
  if (focused) body.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  if (empty) {
    empty.hidden = made.length > 0;
    body.closest('.scroll').hidden = made.length === 0;
  }
}

// --- Asking

class Refused extends Error {}
class Denied extends Error {}
async function ask(path, options = {}) {
  const token = sessionStorage.getItem('token');
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const answer = await fetch(`api/${path}`, { ...options, headers });
  if (answer.status === 401) throw new Refused(await answer.text());
  if (answer.status === 403) throw new Denied(await answer.text());
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer;
}
const json = async (path) => (await ask(path)).json();
const query = (values) => new URLSearchParams(values).toString();
async function unlessDenied(promise) {
  try {
    return await promise;
  } catch (e) {
    if (e instanceof Denied) return null;
    throw e;
  }
}

// --- Showing

function showServer(server) {
  $('overview').hidden = !server;
  if (!server) return;
  const { store, cache, upkeep } = server;
  $('store').textContent = store.url;
  const asked = cache ? cache.from_cache + cache.from_store + cache.joined : 0;
  const requests = store.gets + store.puts + store.lists + store.heads + store.deletes;
  const rate = upkeep.bytes_per_second ? `${size(upkeep.bytes_per_second)} a second` : 'no limit';
  facts($('figures'), [
    ['Version', server.version],
    ['Serves', server.draining ? el('span', 'it is ending', { class: 'bad' }) : server.role === 'all' ? 'logs and pages' : server.role],
    ['Since', moment(server.started_ms)],
    ['Volumes', upkeep.looked_ms ? [`${number(server.volumes)}, `, moment(upkeep.looked_ms)] : 'not looked at yet'],
    ['Watchers', `${number(server.watchers)} of ${number(server.volumes_watched)}`],
    ['Calls under way', number(server.calls_in_flight)],
    cache && ['Cache hit rate', asked ? `${((100 * (cache.from_cache + cache.joined)) / asked).toFixed(1)} % of ${number(asked)}` : '–'],
    ['Requests to the store', `${number(requests)}, about $${store.cost_dollars.toFixed(2)}`],
    ['From and to the store', `${size(store.bytes_in)}, ${size(store.bytes_out)}`],
    ['Upkeep', upkeep.scheduled ? `on, ${rate}` : 'only what is asked for'],
  ]);
}

function volumeRow(volume) {
  const head = volume.head;
  const link = el('a', volume.volume, { href: `#/volume/${encodeURIComponent(volume.volume)}` });
  const odd = el('span', ` (${volume.state})`, { class: volume.state === 'damaged' ? 'bad' : 'quiet' });
  const name = volume.state === 'live' ? [link] : [link, odd];
  return el('tr', [
    el('th', name, { scope: 'row' }),
    figure(head ? number(head.lsn) : '–'),
    figure(head ? size(head.page_count * head.page_size) : '–'),
    cell(head ? moment(head.time_ms) : '–'),
    figure(number(volume.watchers)),
    cell(volume.verified_ms ? [moment(volume.verified_ms), ` to LSN ${number(volume.verified_lsn)}`] : el('span', 'not yet', { class: 'quiet' })),
  ]);
}
function showVolumes(volumes) {
  rows($('volume-rows'), volumes.map(volumeRow), $('no-volumes'));
  $('more').hidden = volumes.length < VOLUMES;
  $('more').dataset.after = volumes.at(-1)?.volume ?? '';
  $('first').hidden = !state.after;
}

function commitRow(commit, isNew) {
  return el(
    'tr',
    [
      el('th', number(commit.lsn), { scope: 'row', class: 'n' }),
      cell(moment(commit.time_ms)),
      cell(commit.kind),
      figure(commit.pages_changed == null ? '–' : number(commit.pages_changed)),
      figure(number(commit.page_count)),
      figure(size(commit.bytes)),
      cell(commit.author),
    ],
    isNew ? { class: 'new' } : {},
  );
}
function showCommits(commits) {
  $('log-rows').append(...commits.map((commit) => commitRow(commit, false)));
  state.oldest = commits.at(-1)?.lsn ?? 1;
  $('older').hidden = state.oldest <= 1;
}
function showVolume({ volume }) {
  const head = volume.head;
  $('volume-title').textContent = volume.volume;
  facts($('volume-facts'), [
    ['State', volume.state],
    ['LSN', el('span', number(head.lsn), { id: 'volume-lsn' })],
    ['Pages', `${number(head.page_count)} of ${size(head.page_size)}`],
    ['Last commit', moment(head.time_ms)],
    ['Newest checkpoint', volume.checkpoint_lsn ? `LSN ${number(volume.checkpoint_lsn)}` : 'none'],
    ['Keeps', volume.keeps],
    ['Watchers', number(volume.watchers)],
    volume.segments && ['Segments', `${number(volume.segments.objects)}, ${size(volume.segments.bytes)}`],
    volume.quota_bytes > 0 && ['Quota', size(volume.quota_bytes)],
    ['Every byte verified', volume.verified_ms ? [moment(volume.verified_ms), ` to LSN ${number(volume.verified_lsn)}`] : 'not yet'],
  ]);
}

const OUTCOMES = {
  failed: (problem) => el('span', problem, { class: 'bad' }),
  checkpoint: ({ lsn, bytes }) => `LSN ${number(lsn)}, ${size(bytes)}`,
  compact: (done) => `LSN ${number(done.lsn)}, ${number(done.pages)} pages rewritten`,
  collect: (done) => {
    const bytes = [done.commits, done.checkpoints, done.segments].reduce((sum, amount) => sum + (amount?.bytes ?? 0), 0);
    return `kept from LSN ${number(done.horizon_lsn)}, ${size(bytes)} gone`;
  },
  verify: ({ damage, more_damage, lsn, bytes }) =>
    damage.length > 0
      ? el('span', `${number(damage.length + more_damage)} objects are damaged`, { class: 'bad' })
      : el('span', `sound to LSN ${number(lsn)}, ${size(bytes)} read`, { class: 'good' }),
};
function outcome(run) {
  if (run.waiting) return 'waits for its turn';
  if (!run.outcome) return `${size(run.bytes_read)} read, ${size(run.bytes_written)} written so far`;
  const [[kind, report]] = Object.entries(run.outcome);
  return OUTCOMES[kind](report);
}
function showRuns(runs) {
  const made = runs.map((run) =>
    el('tr', [
      el('th', run.volume, { scope: 'row' }),
      cell(run.work),
      cell(run.asked_by || el('span', run.scheduled ? 'schedule' : 'anybody', { class: 'quiet' })),
      cell(moment(run.began_ms)),
      cell(outcome(run)),
    ]),
  );
  rows($('run-rows'), made, $('no-runs'));
}
function showClients(clients) {
  $('clients').hidden = !clients;
  if (!clients) return;
  const made = clients.map((client) =>
    el('tr', [
      el('th', client.address, { scope: 'row' }),
      cell(client.subject || el('span', 'anybody', { class: 'quiet' })),
      cell(moment(client.last_seen_ms)),
      figure(number(client.calls)),
      figure(number(client.calls_in_flight)),
    ]),
  );
  rows($('client-rows'), made, $('no-clients'));
}

// --- Following one volume

async function follow(volume) {
  state.watch?.abort();
  const watch = new AbortController();
  state.watch = watch;
  while (!watch.signal.aborted) {
    try {
      const path = `volume/commits?${query({ name: volume, after: state.head })}`;
      const answer = await ask(path, { signal: watch.signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = '';
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        text += part.value;
        const lines = text.split('\n');
        text = lines.pop();
        for (const line of lines) if (line) appeared(JSON.parse(line));
      }
    } catch (e) {
      if (watch.signal.aborted) return;
    }
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}
function appeared(commit) {
  if (commit.lsn <= state.head) return;
  state.head = commit.lsn;
  $('log-rows').prepend(commitRow(commit, true));
  $('volume-lsn').textContent = number(commit.lsn);
  $('announced').textContent = `LSN ${number(commit.lsn)} has just come${commit.author ? ` from ${commit.author}` : ''}.`;
}

async function openVolume(name) {
  const found = await json(`volume?${query({ name, limit: COMMITS })}`);
  if (state.volume !== name) return;
  state.head = found.volume.head.lsn;
  $('log-rows').replaceChildren();
  $('announced').textContent = '';
  showVolume(found);
  showCommits(found.commits);
  follow(name);
}

// --- Going on

async function refresh() {
  const at = ++state.drawn;
  const isListDue = !state.volume && Date.now() - state.listed >= VOLUMES_EVERY_MS;
  try {
    const volumes = `volumes?${query({ prefix: $('prefix').value, after: state.after, limit: VOLUMES })}`;
    const [server, clients, listed, runs] = await Promise.all([
      unlessDenied(json('server')), unlessDenied(json('clients')), isListDue ? json(volumes) : null, json('runs'),
    ]);
    if (at !== state.drawn) return;
    $('sign-in').hidden = true;
    $('content').hidden = false;
    showServer(server);
    showClients(clients);
    if (listed) {
      state.listed = Date.now();
      showVolumes(listed);
    }
    showRuns(runs);
    tell('');
  } catch (e) {
    if (at !== state.drawn) return;
    if (e instanceof Refused) signIn(sessionStorage.getItem('token') ? 'The server does not take this token.' : '');
    else tell(`Out of date: ${e instanceof TypeError ? 'the server does not answer' : e.message}`);
  }
}
function tell(problem) {
  if ($('state').textContent === problem) return;
  $('state').textContent = problem;
  $('state').className = problem ? 'bad' : '';
}
function signIn(problem) {
  sessionStorage.removeItem('token');
  if ($('sign-in').hidden) {
    $('content').hidden = true;
    $('sign-in').hidden = false;
    $('token').focus();
  }
  if (problem) $('refused').textContent = problem;
}

async function route() {
  const named = location.hash.match(/^#\/volume\/(.*)$/);
  const name = named ? decodeURIComponent(named[1]) : null;
  if (name === state.volume) return;
  state.volume = name;
  state.watch?.abort();
  $('volume').hidden = !name;
  $('volumes').hidden = Boolean(name);
  document.title = name ? `${name} – Quire` : 'Quire';
  if (!name) {
    list(state.after);
    return;
  }
  $('volume-title').textContent = name;
  $('volume-facts').replaceChildren();
  $('log-rows').replaceChildren();
  try {
    await openVolume(name);
    $('volume-title').focus();
  } catch (e) {
    if (!(e instanceof Refused)) facts($('volume-facts'), [['Problem', el('span', e.message, { class: 'bad' })]]);
  }
}

$('sign-in').addEventListener('submit', async (event) => {
  event.preventDefault();
  sessionStorage.setItem('token', $('token').value.trim());
  $('token').value = '';
  $('refused').textContent = '';
  await refresh();
  state.volume = undefined;
  await route();
});
$('find').addEventListener('submit', (event) => event.preventDefault());
function list(after) {
  state.after = after;
  state.listed = 0;
  refresh();
}
$('prefix').addEventListener('input', () => list(''));
$('more').addEventListener('click', () => list($('more').dataset.after));
$('first').addEventListener('click', () => list(''));
$('older').addEventListener('click', async () => {
  const name = state.volume;
  const found = await json(`volume?${query({ name, before: state.oldest, limit: COMMITS })}`);
  if (state.volume === name) showCommits(found.commits);
});
window.addEventListener('hashchange', route);
document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
setInterval(() => { if (!document.hidden && $('sign-in').hidden) refresh(); }, EVERY_MS);
await route();
if (state.volume) await refresh();
