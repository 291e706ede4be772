// A pod is ready only if the API server could call it: the webhook dials its own port and looks at what is served.
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { eventually } from './ask.ts';
import { type RunningWebhook, runWebhook } from './running-webhook.ts';

async function serve(webhook: RunningWebhook, names: readonly string[], days?: number): Promise<void> {
  const { certPem, keyPem } = await webhook.authority.serving(names, days);
  for (const [file, text] of Object.entries({ 'tls.key': keyPem, 'tls.crt': certPem })) {
    await writeFile(join(webhook.dir, `${file}.new`), text);
    await rename(join(webhook.dir, `${file}.new`), join(webhook.dir, file));
  }
}

test('what is served has to be for the Service’s name, and not expired', async () => {
  await using webhook = await runWebhook({ env: { SERVER_NAME: 'localhost' } });
  // The test's own connections verify too, so this one is kept.
  const kept = webhook.client();
  const ready = () => webhook.send('/readyz', undefined, { method: 'GET', over: kept });
  const message = async () => (JSON.parse((await ready()).text) as { message?: string }).message;
  expect(await ready()).toMatchObject({ status: 200, text: '{"status":"ok"}' });

  await serve(webhook, ['elsewhere.pull.svc']);
  await eventually(async () => (await ready()).status === 503);
  expect(await message()).toMatch(/^the certificate is not for localhost, but for DNS:elsewhere\.pull\.svc$/);

  await serve(webhook, ['localhost'], -0.5);
  await eventually(async () => (await message())?.includes('expired') ?? false);
  expect(await message()).toMatch(/^the certificate expired at \d{4}-\d\d-\d\dT/);

  await serve(webhook, ['localhost']);
  await eventually(async () => (await ready()).status === 200);
  // Each change is told once, however often the kubelet asks.
  const told = webhook.program
    .log()
    .split('\n')
    .flatMap((line) => (line ? [JSON.parse(line).msg as string] : []))
    .filter((msg) => ['ready', 'not ready'].includes(msg));
  expect(told).toEqual(['not ready', 'not ready', 'ready']);
});

test('nobody but the probe is held up by it: an expired one still answers reviews and /healthz', async () => {
  await using webhook = await runWebhook();
  const kept = webhook.client();
  await webhook.send('/healthz', undefined, { method: 'GET', over: kept });
  await serve(webhook, ['localhost'], -0.5);
  await eventually(
    async () => (await webhook.send('/readyz', undefined, { method: 'GET', over: kept })).status === 503,
  );
  expect(await webhook.send('/healthz', undefined, { method: 'GET', over: kept })).toMatchObject({
    status: 200,
  });
  expect(await webhook.send('/sync', '{}', { over: kept })).toMatchObject({ status: 400 });
});
