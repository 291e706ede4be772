// What doctor says of versions that differ: each pair gives a sentence and a command.
import { expect, test } from 'vitest';
import { renderVersionWarnings, versionsOf } from '../../../../cli/commands/doctor/versions.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';
import { VERSION } from '../../../../lib/version.ts';

const commands = new ShellCommands({}, { context: 'prod' });
const [major = 0, minor = 0] = VERSION.split('.').map(Number);
const NEWER = `${major}.${minor + 1}.0`;
const FAR = `${major + 1}.0.0`;
const OLDER = '0.0.1';

test('equal versions, and parts that were not looked at, give no warning', () => {
  expect(versionsOf({ function: VERSION, chart: VERSION }, commands)).toEqual({
    versions: { cli: VERSION, function: VERSION, chart: VERSION },
    versionWarnings: [],
  });
  expect(versionsOf({}, commands)).toEqual({ versions: { cli: VERSION }, versionWarnings: [] });
});

test.each([
  { found: { function: null }, code: 'function-older', supported: false, hint: commands.deploy() },
  { found: { function: OLDER }, code: 'function-older', hint: commands.deploy() },
  { found: { function: NEWER }, code: 'function-newer', supported: true, hint: NEWER },
  { found: { function: FAR }, code: 'function-newer', supported: false, hint: FAR },
  { found: { chart: OLDER }, code: 'chart-older', hint: commands.upgrade() },
  { found: { chart: NEWER }, code: 'chart-newer', supported: true, hint: NEWER },
])('$found gives $code', ({ found, hint, ...expected }) => {
  const { versionWarnings } = versionsOf(found, commands);
  expect(versionWarnings).toEqual([
    expect.objectContaining({ ...expected, hint: expect.stringContaining(hint) }),
  ]);
  const text = renderVersionWarnings(versionWarnings, undefined).join('\n');
  expect(text).toContain(hint);
  expect(text).not.toMatch(/undefined|null|NaN/);
});
