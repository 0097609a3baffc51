// The client scenario for node:sqlite, sqlite3 and better-sqlite3:
//     node client.cjs MODULE EXTENSION NAME ROLE        (see README.md)
// better-sqlite3 takes no URI, so the runner sets QUIRE_DEFAULT_VFS=1 for it and NAME is a path.

const assert = require('node:assert/strict');
const [module_, extension, name, role] = process.argv.slice(2);

// Each library's connection as the same four calls; the callers await them, for the asynchronous one.
const connect = {
  'node:sqlite': async (file) => {
    const { DatabaseSync } = require('node:sqlite');
    const db = new DatabaseSync(file, { allowExtension: true });
    return {
      load: (path) => db.loadExtension(path),
      exec: (sql) => db.exec(sql),
      all: (sql, ...values) => db.prepare(sql).all(...values).map((row) => ({ ...row })),
      close: () => db.close(),
    };
  },
  'better-sqlite3': async (file) => {
    const db = require('better-sqlite3')(file);
    return {
      load: (path) => db.loadExtension(path),
      exec: (sql) => db.exec(sql),
      all: (sql, ...values) => {
        const statement = db.prepare(sql);
        return statement.reader ? statement.all(...values) : (statement.run(...values), []);
      },
      close: () => db.close(),
    };
  },
  sqlite3: (file) => new Promise((resolve, reject) => {
    const sqlite3 = require('sqlite3');
    const flags = sqlite3.OPEN_READWRITE | sqlite3.OPEN_CREATE | sqlite3.OPEN_URI;
    const call = (method, ...args) => new Promise((done, failed) => {
      db[method](...args, (error, result) => (error ? failed(error) : done(result)));
    });
    const db = new sqlite3.Database(file, flags, (error) => (error ? reject(error) : resolve({
      load: (path) => call('loadExtension', path),
      exec: (sql) => call('exec', sql),
      all: (sql, ...values) => call('all', sql, values),
      close: () => call('close'),
    })));
  }),
}[module_];

let db;

async function expectTracks(count, seconds) {
  const rows = await db.all('SELECT count(*) AS count, sum(seconds) AS seconds FROM track');
  assert.deepEqual(rows, [{ count, seconds }]);
}

async function say(sql) {
  const [row] = await db.all(sql);
  console.log(Object.values(row)[0]);
}

const roles = {
  async write() {
    await db.exec('CREATE TABLE track(id INTEGER PRIMARY KEY, title TEXT NOT NULL, seconds REAL)');
    await db.exec('BEGIN');
    for (let i = 1; i <= 1000; i += 1) {
      await db.all('INSERT INTO track VALUES(?, ?, ?)', i, `Track ${i}`, i / 4);
    }
    await db.exec('COMMIT');
    await db.exec('BEGIN; DELETE FROM track');
    await expectTracks(0, null);
    await db.exec('ROLLBACK');
    await expectTracks(1000, 125125);
    assert.deepEqual(await db.all('SELECT state FROM quire_status'), [{ state: 'ahead' }]);
    await say('SELECT quire_push()');
    assert.deepEqual(await db.all('SELECT state FROM quire_status'), [{ state: 'clean' }]);
  },
  async clone() {
    await expectTracks(1000, 125125);
    assert.deepEqual(await db.all('SELECT title FROM track WHERE id = ?', 500), [{ title: 'Track 500' }]);
  },
  async append() {
    await db.all('INSERT INTO track VALUES(?, ?, ?)', 1001, 'Coda', 61.5);
    await expectTracks(1001, 125186.5);
    await say('SELECT quire_push()');
  },
  async pull() {
    await expectTracks(1000, 125125);
    await say('SELECT quire_pull()');
    await expectTracks(1001, 125186.5);
  },
};

async function main() {
  const loader = await connect(':memory:');
  await loader.load(extension);
  const byDefault = process.env.QUIRE_DEFAULT_VFS === '1';
  db = await connect(byDefault ? name : `file:${name}?vfs=quire`);
  const volume = byDefault ? `fs${name}` : name;
  assert.deepEqual(await db.all('SELECT name FROM quire_status'), [{ name: volume }]);
  await roles[role]();
  assert.deepEqual(await db.all('PRAGMA integrity_check'), [{ integrity_check: 'ok' }]);
  await db.close();
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
