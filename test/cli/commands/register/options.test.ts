// The combinations of register's options that are rejected before anything is contacted.
import { describe, expect, test } from 'vitest';
import { checkOptions, type RegisterOptions } from '../../../../cli/commands/register/options.ts';

const NONE: RegisterOptions = { wait: 0 };

describe('checkOptions', () => {
  test.each<{ title: string; options: Partial<RegisterOptions> }>([
    { title: 'no option', options: {} },
    { title: 'an https URL as --server', options: { server: 'https://k8s.example:6443' } },
    { title: '--keyless with --issuer and --wait', options: { keyless: true, issuer: 'https://a', wait: 5 } },
    { title: '--duration without --credential', options: { duration: 2 } },
    { title: '--credential without --duration', options: { credential: 'file' } },
    { title: '--eks', options: { eks: true } },
  ])('accepts $title', ({ options }) => {
    expect(() => checkOptions({ ...NONE, ...options })).not.toThrow();
  });

  test.each<{ title: string; options: Partial<RegisterOptions>; names: string }>([
    { title: '--server with --eks', options: { server: 'https://a', eks: true }, names: '--eks' },
    {
      title: '--duration with --credential',
      options: { duration: 1, credential: 'file' },
      names: '--duration',
    },
    { title: '--issuer without --keyless', options: { issuer: 'https://a' }, names: '--issuer' },
    { title: '--wait without --keyless', options: { wait: 5 }, names: '--wait' },
    { title: 'an http URL as --server', options: { server: 'http://127.0.0.1:1' }, names: 'https' },
    { title: 'a host and a port as --server', options: { server: 'k8s.example:6443' }, names: 'https' },
    { title: 'a user in --server', options: { server: 'https://me:pass@k8s.example' }, names: 'password' },
  ])('rejects $title', ({ options, names }) => {
    expect(() => checkOptions({ ...NONE, ...options })).toThrow(
      expect.objectContaining({
        code: 'usage',
        exitCode: 2,
        message: expect.stringContaining(names),
        hint: expect.any(String),
      }),
    );
  });
});
