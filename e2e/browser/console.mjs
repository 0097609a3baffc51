// The console in a real browser. Arguments: its URL, a volume, a folder for pictures, and a token if it asks for one.
// It says `watching` when it waits for a commit that somebody else makes, and ends with what it has seen, as JSON.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { chromium } from 'playwright-core';

const [url, volume, pictures, token] = process.argv.slice(2);
const executablePath = execFileSync('which', [process.env.BROWSER], { encoding: 'utf8' }).trim();
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
const seen = { problems: [] };
try {
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 }, colorScheme: 'light' });
  page.on('pageerror', (e) => seen.problems.push(String(e)));
  page.on('console', (message) => {
    // That an answer is a refusal is what the page is made for.
    const refused = /status of 40[13]/.test(message.text());
    if (message.type() === 'error' && !refused) seen.problems.push(message.text());
  });
  await page.goto(url);
  if (token) {
    const field = page.getByLabel('Token');
    await field.waitFor();
    assert.equal(await page.locator('#content').isVisible(), false, 'nothing is shown without a token');
    await field.fill('no.such.token');
    await page.keyboard.press('Enter');
    await page.getByText('The server does not take this token.').waitFor();
    await field.fill(token);
    await page.keyboard.press('Enter');
  }
  const link = page.getByRole('link', { name: volume, exact: true });
  await link.waitFor();
  seen.volumes = await page.locator('#volume-rows tr').evaluateAll((rows) => rows.map((row) => row.querySelector('th').textContent));
  seen.figures = Object.fromEntries(await page.locator('#figures > div').evaluateAll(
    (figures) => figures.map((figure) => [figure.querySelector('dt').textContent, figure.querySelector('dd').textContent])));
  await page.screenshot({ path: path.join(pictures, 'volumes-light.png'), fullPage: true });

  // By keyboard alone: past the link to the content, to the volume, into it.
  await page.locator('body').focus();
  for (let pressed = 0; !(await link.evaluate((a) => a === document.activeElement)); pressed += 1) {
    assert.ok(pressed < 50, 'the volume is reached by Tab');
    await page.keyboard.press('Tab');
  }
  await page.keyboard.press('Enter');
  const title = page.getByRole('heading', { name: volume });
  await title.waitFor();
  await page.locator('#log-rows tr').first().waitFor();
  assert.equal(await title.evaluate((h) => h === document.activeElement), true, 'who follows a link is there');
  seen.lsn = await page.locator('#volume-lsn').textContent();

  console.log('watching');
  await page.locator('#announced', { hasText: 'has just come' }).waitFor({ timeout: 60_000 });
  seen.live = await page.locator('#log-rows tr.new').first().evaluate((row) => row.querySelector('th').textContent);
  assert.equal(await page.locator('#volume-lsn').textContent(), seen.live);
  seen.runs = await page.locator('#run-rows tr').evaluateAll((rows) => rows.map((row) => row.children[1].textContent));
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.screenshot({ path: path.join(pictures, 'volume-dark.png'), fullPage: true });

  // What a screen reader goes by: every table has heads, every field a label, every image of the page a name.
  const unnamed = await page.evaluate(() => {
    const named = (field) => field.labels?.length > 0;
    const tables = [...document.querySelectorAll('table')].filter((table) => !table.querySelector('th[scope=col]'));
    const fields = [...document.querySelectorAll('input')].filter((field) => !named(field));
    const regions = [...document.querySelectorAll('section, [role=region]')].filter((part) => !part.getAttribute('aria-labelledby'));
    return [...tables, ...fields, ...regions].map((part) => part.outerHTML.slice(0, 80));
  });
  assert.deepEqual(unnamed, []);
  assert.equal(await page.locator('h1').count(), 1);
  seen.contrast = await page.evaluate(() => {
    const parts = (color) => color.match(/[\d.]+/g).slice(0, 3).map(Number);
    const light = (color) => {
      const [r, g, b] = parts(color).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = light(getComputedStyle(document.querySelector('section')).backgroundColor);
    return Math.min(...['td', 'dt', 'a', '.good', 'thead th'].map((selector) => {
      const found = [...document.querySelectorAll(`section:not([hidden]) ${selector}`)].at(0);
      if (!found) return Infinity;
      const [a, b] = [light(getComputedStyle(found).color), paper].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05);
    }));
  });

  // A narrow window does not scroll sideways.
  await page.setViewportSize({ width: 360, height: 700 });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(wide, 0, `the page is ${wide} pixels too wide for a telephone`);
  await page.goBack();
  await link.waitFor();
  await page.getByLabel('Names that begin with').fill('nobody has this name');
  await page.getByText('There are none.').waitFor();
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
