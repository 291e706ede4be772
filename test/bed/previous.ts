// Provides the project as it was at a fixed earlier commit, for tests of mixed versions and of upgrades.
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { CACHE } from './toolchain.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);
/** Before the function stated its version. Its dependencies are among those of the present package-lock.json. */
const COMMIT = '6c90135cdf35e5ec470d740e6f6244849b1f1819';

/**
 * Returns the directory of the earlier files, with the present node_modules. It is outside the checkout, and kept in the cache.
 *
 * @throws Error if the repository lacks the commit, as in a shallow clone
 */
export async function previousCheckout(): Promise<string> {
  const dir = join(CACHE, `previous-${COMMIT.slice(0, 12)}`);
  const parts = join(CACHE, 'previous-');
  if (!existsSync(dir)) {
    await mkdir(CACHE, { recursive: true });
    const part = await mkdtemp(parts);
    try {
      await run('git', ['cat-file', '-e', `${COMMIT}^{commit}`], { cwd: ROOT }).catch((cause: unknown) => {
        throw new Error(
          `The repository lacks the commit ${COMMIT}, the earlier version of this test. Is the clone shallow? Run: git fetch --unshallow`,
          { cause },
        );
      });
      const archive = join(part, 'archive.tar');
      await run('git', ['archive', '--output', archive, COMMIT], { cwd: ROOT });
      await run('tar', ['--extract', '--file', archive, '--directory', part]);
      await rm(archive);
      // Another run may have been faster.
      await rename(part, dir).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
      });
    } finally {
      await rm(part, { recursive: true, force: true });
    }
  }
  // The checkout that uses the cache may be another one than before.
  const modules = join(dir, 'node_modules');
  await rm(modules, { force: true });
  await symlink(join(ROOT, 'node_modules'), modules);
  return dir;
}
