// Loaded into a process before its program (node --import): the program's clock is SHIFT_CLOCK_MS ahead.
const shiftMs = Number(process.env.SHIFT_CLOCK_MS);

globalThis.Date = new Proxy(Date, {
  construct: (target, args, newTarget) =>
    Reflect.construct(target, args.length === 0 ? [target.now() + shiftMs] : args, newTarget),
  get: (target, key) => (key === 'now' ? () => target.now() + shiftMs : Reflect.get(target, key)),
});
