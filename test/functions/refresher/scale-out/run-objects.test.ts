// Tests the objects of a run in batches, against a server that stores objects as S3 does.
import { createServer, type Server } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { notServed } from '../../../../functions/refresher/run/cluster-report.ts';
import { runObjects } from '../../../../functions/refresher/scale-out/run-objects.ts';

const REPORTS = [notServed('a', [{ code: 'unreachable', reason: 'no response' }])];
const stored = new Map<string, Buffer>();
let denied: boolean;
let server: Server;

beforeEach(async () => {
  stored.clear();
  denied = false;
  server = createServer(async (request, response) => {
    const path = new URL(request.url ?? '', 'http://s3').pathname;
    const fail = (status: number, code: string) => {
      response.writeHead(status, { 'content-type': 'application/xml' });
      response.end(`<Error><Code>${code}</Code><Message>no</Message></Error>`);
    };
    const body = await buffer(request);
    if (denied) return fail(403, 'AccessDenied');
    if (request.method === 'PUT') stored.set(path, body);
    else if (!stored.has(path)) return fail(404, 'NoSuchKey');
    response.end(request.method === 'PUT' ? '' : stored.get(path));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  vi.stubEnv('AWS_ENDPOINT_URL_S3', `http://127.0.0.1:${port}`);
  vi.stubEnv('AWS_REGION', 'eu-central-1');
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'test');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test');
});
afterEach(() => {
  vi.unstubAllEnvs();
  server.closeAllConnections();
  server.close();
});

const inTime = () => AbortSignal.timeout(30_000);

test('what a step stores, the next one reads, below the name of the run', async () => {
  const objects = runObjects('runs-bucket')('run-1', inTime());
  const list = { startedAt: 1, batchesUntil: 2, batches: 1, discoveries: [] };
  await objects.putList(list);
  await objects.putClusters(0, [{ name: 'a', isPaused: false }]);
  await objects.putReports(0, REPORTS);

  expect(await objects.list()).toEqual(list);
  expect(await objects.clusters(0)).toEqual([{ name: 'a', isPaused: false }]);
  expect(await objects.reports(0)).toEqual(REPORTS);
  expect([...stored.keys()]).toEqual(
    ['list', '0/clusters', '0/reports'].map((name) => `/runs-bucket/runs/run-1/${name}.json`),
  );
});

test('a batch that its time limit ended stores its reports', async () => {
  const objects = runObjects('runs-bucket')('run-1', AbortSignal.abort());
  await objects.putReports(0, REPORTS);
  expect(stored.size).toBe(1);
});

test('a batch without reports has none, but reports that may not be read are an error', async () => {
  const objects = runObjects('runs-bucket')('run-1', inTime());
  expect(await objects.reports(7)).toBeUndefined();
  denied = true;
  await expect(objects.reports(7)).rejects.toThrow('no');
});
