// Packages the chart for a registry, with the published image as its default: `npm run package:chart`. In the checkout
// image.repository has none, because only a release knows where its image is.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { parseDocument } from 'yaml';
import { VERSION } from '../lib/version.ts';
import { type Property, valuesYaml } from '../webhook/chart-values.ts';

const ROOT = join(import.meta.dirname, '..');

export interface PublishedImage {
  /** Such as registry.example.com/ecr-anywhere. */
  readonly repository: string;
  /** sha256:…; without it, the tag is the chart's appVersion. */
  readonly digest?: string | undefined;
}

/**
 * Writes the chart's archive.
 *
 * @param image the defaults of image.repository and image.digest
 * @param destination the folder of the archive
 * @param helm the program
 * @returns the archive's path
 * @throws Error if the digest is none: the archive could not be installed
 */
export function packageChart(image: PublishedImage, destination: string, helm = 'helm'): string {
  const { repository, digest = '' } = image;
  const dir = mkdtempSync(join(tmpdir(), 'ecr-anywhere-'));
  try {
    const chart = join(dir, 'ecr-anywhere');
    cpSync(join(ROOT, 'webhook/chart'), chart, { recursive: true });

    const schemaPath = join(chart, 'values.schema.json');
    const schema = JSON.parse(readFileSync(schemaPath, 'utf8'));
    const { properties } = schema.properties.image;
    Object.assign(schema.properties.image, { description: "The webhook's image." });
    if (!new RegExp(properties.digest.pattern).test(digest))
      throw new Error(
        `${digest} is not the digest of an image: it must be sha256: and 64 hexadecimal digits.`,
      );
    Object.assign(properties.repository, {
      description:
        'The repository of the image. Of another image, set image.digest too, or to "" for its tag.',
      default: repository,
    });
    Object.assign(properties.digest, { default: digest });
    writeFileSync(schemaPath, JSON.stringify(schema, null, 2));
    writeFileSync(join(chart, 'values.yaml'), valuesYaml(schema as Property));

    const manifestPath = join(chart, 'Chart.yaml');
    const manifest = parseDocument(readFileSync(manifestPath, 'utf8'));
    const name = digest === '' ? `${repository}:${VERSION}` : `${repository}@${digest}`;
    // Artifact Hub reads it as YAML within YAML.
    manifest.setIn(
      ['annotations', 'artifacthub.io/images'],
      `- name: ecr-anywhere\n  image: ${name}\n  platforms: [linux/amd64, linux/arm64]\n`,
    );
    writeFileSync(manifestPath, manifest.toString({ lineWidth: 0 }));

    mkdirSync(destination, { recursive: true });
    execFileSync(helm, ['package', chart, '--destination', destination], { stdio: 'pipe' });
    return join(destination, `ecr-anywhere-${VERSION}.tgz`);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { 'image-repository': { type: 'string' }, 'image-digest': { type: 'string' } },
  });
  const repository = values['image-repository'];
  if (repository === undefined) {
    console.error(
      '✖ Name the image: npm run package:chart -- --image-repository registry.example.com/ecr-anywhere',
    );
    process.exitCode = 2;
  } else console.log(packageChart({ repository, digest: values['image-digest'] }, join(ROOT, 'dist/chart')));
}
