// What doctor shows to people: at a terminal of any width nothing begins again below the marks and nothing is cut off, in
// a pipe a finding is one line, and of thousands of clusters those that need somebody come first.
import { describe, expect, test } from 'vitest';
import {
  broken,
  inFull,
  judge,
  LINKS,
  type LinkName,
  unknown,
  well,
} from '../../../../cli/commands/doctor/checks.ts';
import { type ClusterResult, fleetInWords } from '../../../../cli/commands/doctor/fleet.ts';
import {
  blindnessInWords,
  firstBrokenInWords,
  walkInWords,
  wrapped,
} from '../../../../cli/commands/doctor/render.ts';

const ARN = `arn:aws:sts::111122223333:assumed-role/${'Administrator'.repeat(4)}/me@example.com`;
const LONG = `failed calling webhook ${'connection refused '.repeat(9)}by ${ARN}`;
const all = judge([well('session', ARN), broken('webhook', LONG, `kubectl ${'x '.repeat(90)}`, LONG)]);
const [webhook] = all.filter(({ link }) => link === 'webhook');
if (!webhook) throw new Error('no finding');
/** Where what is said begins. */
const COLUMN = Math.max(...all.map(({ link }) => LINKS[link].title.length)) + 5;

describe.each([60, 80, 132])('a terminal of %i columns', (columns) => {
  test('the walk: the column goes on below itself, and nothing is cut off', () => {
    const lines = walkInWords(all, columns).split('\n');
    for (const line of lines) {
      expect(line.length).toBeLessThanOrEqual(columns);
      if (!/^[✔✖–]/.test(line)) expect(line.slice(0, COLUMN).trim()).toBe('');
    }
    expect(lines.filter((line) => /^[✔✖–]/.test(line))).toHaveLength(all.length);
    const said = lines.map((line) => line.slice(COLUMN)).join('');
    expect(said).toContain(ARN);
    expect(said.replaceAll(' ', '')).toContain(LONG.replaceAll(' ', ''));
  });

  test('the first broken link: in a block of its own, and the command in one piece', () => {
    const [, ...lines] = firstBrokenInWords(webhook, columns).split('\n');
    const command = lines.filter((line) => line.startsWith('  → '));
    expect(command).toEqual([`  → ${webhook.repair}`]);
    for (const line of lines) expect(line).toMatch(/^ {2}/);
    for (const line of lines.filter((one) => !command.includes(one)))
      expect(line.length).toBeLessThanOrEqual(columns);
  });
});

test('in a pipe a finding is one line', () => {
  const lines = walkInWords(all, undefined).split('\n');
  expect(lines).toHaveLength(all.length);
  expect(lines.find((line) => line.startsWith('✖'))?.slice(COLUMN)).toBe(LONG);
});

test.each([
  { text: 'ab cd ef', width: 24, lines: ['ab cd ef'] },
  { text: `${'a'.repeat(20)} bcdef`, width: 24, lines: ['a'.repeat(20), 'bcdef'] },
  { text: 'b'.repeat(30), width: 24, lines: ['b'.repeat(24), 'bbbbbb'] },
  { text: 'narrower than any column', width: 3, lines: ['narrower than any column'] },
  {
    text: 'no terminal at all, and so one line',
    width: undefined,
    lines: ['no terminal at all, and so one line'],
  },
])('$text in $width', ({ text, width, lines }) => {
  expect(wrapped(text, width)).toEqual(lines);
});

test('who could not look hears at what, why, and that it counts', () => {
  const says = 'it is not known whether the context staging is of prod: name it with --context';
  const links = Object.keys(LINKS) as LinkName[];
  const seen = links.slice(0, links.indexOf('context')).filter((link) => link !== 'clock');
  const words = blindnessInWords(
    judge([
      ...seen.map((link) => well(link, 'x')),
      unknown('clock', 'the API server does not tell its time'),
      unknown('context', says),
    ]),
    undefined,
  );
  expect(words).toMatch(
    /^No broken link, but not all well either: 17 of 29 could not be looked at, which counts/,
  );
  expect(words).toMatch(/“clocks agree”, “your own context”/);
  expect(words).toMatch(
    /For 1[56] of them, because: it is not known whether the context staging is of prod: name/,
  );
});

describe('all clusters', () => {
  const result = (cluster: string, more: Partial<ClusterResult> = {}): ClusterResult => ({
    cluster,
    ...more,
  });
  const many = Array.from({ length: 3000 }, (_, index) => result(`well-${index}`));
  const wrong = result('wrong', { firstBroken: inFull(broken('reachable', LONG, 'x')) });
  const dim = result('dim', { firstUnknown: inFull(unknown('clock', 'no Date')) });
  const shown = (results: readonly ClusterResult[], columns?: number) =>
    fleetInWords(results, 'ecr-anywhere doctor NAME', columns).split('\n');

  test('of thousands, those that need somebody come first, and the rest is a number', () => {
    const lines = shown([...many, dim, wrong]);
    expect(lines.slice(1, 4).map((line) => line.split(' ')[0])).toEqual(['wrong', 'dim', 'well-0']);
    expect(lines[51]).toBe('… and 2952 more, which are well');
    expect(lines[53]).toBe(
      '1 of 3002 has a broken link; 1 could not be looked at, which counts (exit code 1); 3000 are well.',
    );
  });

  test('however many are wrong, each has its row', () => {
    const lines = shown([...many.map(({ cluster }) => ({ ...wrong, cluster })), result('one')]);
    expect(lines[3001]).toBe('… and 1 more, which is well');
  });

  test('fifty are no crowd', () => {
    expect(shown(many.slice(0, 50)).filter((line) => line.startsWith('well-'))).toHaveLength(50);
  });

  test('at a terminal no line is longer', () => {
    for (const line of shown([wrong, dim, ...many], 80))
      if (!line.startsWith('  → ')) expect(line.length).toBeLessThanOrEqual(80);
  });

  test('none at all', () => {
    expect(shown([])[0]).toBe('No cluster is registered.');
  });
});
