// The lifetime of the token that register requests, from what the chart allows on its ServiceAccount.
import { describe, expect, test } from 'vitest';
import { planToken } from '../../../../cli/commands/register/service-account-token.ts';
import type { Installation } from '../../../../cli/kubernetes/chart.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';

const HOUR = 3600;
const WEEK = 168 * HOUR;
const installation = {
  release: 'ecr-anywhere',
  namespace: 'ecr-anywhere',
  refresher: 'ecr-anywhere-refresher',
  tokenSecret: 'ecr-anywhere-refresher-token',
} as Installation;
const commands = new ShellCommands({}, { release: installation });

/** @param maxSeconds the chart's annotation @param account null: there is no ServiceAccount */
function plan(seconds: number | undefined, maxSeconds?: number, account: object | null = {}) {
  const annotations = { 'ecr-anywhere.centml.ai/token-max-seconds': String(maxSeconds) };
  const metadata = { labels: { a: 'b' }, ...(maxSeconds !== undefined && { annotations }) };
  const found = account === null ? undefined : { ...account, metadata };
  return planToken({ find: async <Body>() => found as Body | undefined }, installation, seconds, commands);
}

describe('planToken', () => {
  test.each([
    { title: 'a week by default', seconds: undefined, maxSeconds: undefined, expected: WEEK },
    {
      title: 'a week by default, if the chart allows more',
      seconds: undefined,
      maxSeconds: 2 * WEEK,
      expected: WEEK,
    },
    { title: 'what the chart allows, if that is less', seconds: undefined, maxSeconds: HOUR, expected: HOUR },
    { title: 'the requested lifetime', seconds: 2 * HOUR, maxSeconds: WEEK, expected: 2 * HOUR },
    {
      title: 'more than a week, if the chart allows it',
      seconds: 2 * WEEK,
      maxSeconds: 2 * WEEK,
      expected: 2 * WEEK,
    },
  ])('plans $title', async ({ seconds, maxSeconds, expected }) => {
    expect(await plan(seconds, maxSeconds)).toEqual({ installation, seconds: expected, labels: { a: 'b' } });
  });

  test.each([
    {
      title: 'a longer lifetime than the chart allows, and names both ways out',
      seconds: 169 * HOUR,
      hint: /--duration 168h\b.*helm upgrade ecr-anywhere \S+ --namespace ecr-anywhere --reset-then-reuse-values --set refresher\.token\.maxSeconds=608400$/,
    },
    { title: 'a lifetime of less than ten minutes', seconds: 0.1 * HOUR, hint: /--duration/ },
  ])('rejects $title', async ({ seconds, hint }) => {
    await expect(plan(seconds, WEEK)).rejects.toMatchObject({
      code: 'token-lifetime-invalid',
      exitCode: 2,
      hint: expect.stringMatching(hint),
    });
  });

  test('fails if the ServiceAccount is missing, with the command that restores it', async () => {
    await expect(plan(undefined, undefined, null)).rejects.toMatchObject({
      code: 'chart-incomplete',
      exitCode: 5,
      hint: expect.stringMatching(/^helm upgrade ecr-anywhere /),
    });
  });
});
