// The readiness check: a pod is ready only if the API server could call it with the certificate that it serves.
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type RunningWebhook, runWebhook } from './running-webhook.ts';

/** The webhook reads its files every five seconds. */
const PATIENCE = { timeout: 15_000, interval: 50 };

async function serve(webhook: RunningWebhook, names: readonly string[], days?: number): Promise<void> {
  const { certPem, keyPem } = await webhook.authority.serving(names, days);
  for (const [file, text] of Object.entries({ 'tls.key': keyPem, 'tls.crt': certPem })) {
    await writeFile(join(webhook.dir, `${file}.new`), text);
    await rename(join(webhook.dir, `${file}.new`), join(webhook.dir, file));
  }
}

test('is not ready while the certificate is for another name or has expired', async () => {
  await using webhook = await runWebhook({ env: { SERVER_NAME: 'localhost' } });
  // New connections of the test would fail to verify such a certificate.
  const kept = webhook.client();
  const ready = () => webhook.send('/readyz', undefined, { method: 'GET', over: kept });
  const message = async () => (JSON.parse((await ready()).text) as { message?: string }).message;
  expect(await ready()).toMatchObject({ status: 200, text: '{"status":"ok"}' });

  await serve(webhook, ['elsewhere.pull.svc']);
  await expect.poll(message, PATIENCE).toContain('elsewhere.pull.svc');
  expect((await ready()).status).toBe(503);

  await serve(webhook, ['localhost'], -0.5);
  await expect.poll(message, PATIENCE).toContain('expired');

  await serve(webhook, ['localhost']);
  await expect.poll(async () => (await ready()).status, PATIENCE).toBe(200);
  // Each change is logged once, however often the kubelet probes. The log is written after the answer.
  const logged = () => webhook.program.log().match(/"msg":"(not )?ready"/g);
  await expect.poll(logged).toEqual(['"msg":"not ready"', '"msg":"not ready"', '"msg":"ready"']);
});

test('answers reviews and /healthz although its certificate has expired', async () => {
  await using webhook = await runWebhook();
  const kept = webhook.client();
  await webhook.send('/healthz', undefined, { method: 'GET', over: kept });
  await serve(webhook, ['localhost'], -0.5);
  await expect
    .poll(
      async () => (await webhook.send('/readyz', undefined, { method: 'GET', over: kept })).status,
      PATIENCE,
    )
    .toBe(503);
  expect(await webhook.send('/healthz', undefined, { method: 'GET', over: kept })).toMatchObject({
    status: 200,
  });
  expect(await webhook.send('/sync', '{}', { over: kept })).toMatchObject({ status: 400 });
});
