// Which tests run in one process, and need no program of the test bed: the ones `npm run test:unit` runs. Read from the
// imports, so that no list and no file name can be wrong.
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

/** The modules that start programs: those that `test/bed/toolchain.ts` builds or installs, and the project's bundles. */
const PROGRAMS: ReadonlySet<string> = new Set(
  ['control-plane', 'emulator', 'toolchain', 'helm', 'deploy', 'process'].map(
    (name) => `test/bed/${name}.ts`,
  ),
);

const STARTS = "from 'node:child_process'";
const IMPORT = /^(?:import|export)(?! type)[^;]*? from '(\.[^']+\.ts)'|import\('(\.[^']+\.ts)'\)/gm;

/**
 * Finds the unit tests.
 *
 * @param root the checkout's directory
 * @returns paths relative to it
 */
export function unitTests(root: string): string[] {
  const needsPrograms = new Map<string, boolean>(PROGRAMS.values().map((path) => [path, true]));
  const visit = (path: string): boolean => {
    const known = needsPrograms.get(path);
    if (known !== undefined) return known;
    // Set before the imports are followed: a circle of imports ends here.
    needsPrograms.set(path, false);
    const startsPrograms =
      path.startsWith('test/') && readFileSync(join(root, path), 'utf8').includes(STARTS);
    const result = startsPrograms || importsOf(root, path).some(visit);
    needsPrograms.set(path, result);
    return result;
  };
  return globSync('test/**/*.test.ts', { cwd: root })
    .filter((path) => !/^test\/(last|node)\//.test(path))
    .filter((path) => !visit(path))
    .sort();
}

function importsOf(root: string, path: string): string[] {
  const source = readFileSync(join(root, path), 'utf8');
  return [...source.matchAll(IMPORT)]
    .map(([, fixed, dynamic = '']) => normalize(join(dirname(path), fixed ?? dynamic)))
    .filter((target) => existsSync(join(root, target)));
}
