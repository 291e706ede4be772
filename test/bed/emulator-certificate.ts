// The certificate of the local AWS: self-signed, for loopback, good for a week.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** Writes one and its key as PEM files; needs the `openssl` command. */
export async function writeSelfSignedCertificate(certificate: string, key: string): Promise<void> {
  await promisify(execFile)('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '7'],
    ...['-keyout', key, '-out', certificate, '-subj', '/CN=local AWS'],
    ...['-addext', 'basicConstraints=critical,CA:FALSE'],
    ...['-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'],
  ]);
}
