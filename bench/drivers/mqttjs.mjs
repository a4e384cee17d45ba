// MQTT.js as the benchmarks use it: the scenarios of bench/suites/ with the same parameters and figures.
//
// Started by bench_clients with key=value arguments (`npm` is the folder with node_modules); bench/harness.hpp tells how a
// child asks and reports. At its best: MQTT 3.1.1 as by default, no more QoS 1 and 2 messages left with it than the window,
// completions counted by the callback of publish. There is one thread, so a caller that waits lets the library work:
// where other callers spin, this one yields to the event loop. V8's heap hides its allocations, which are not
// counted.

import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { setImmediate as yieldOnce, setTimeout as sleep } from 'node:timers/promises'

const topic = 'bench/publish/topic1'
const receiveTopic = 'bench/receive/topic1'
const stuckSeconds = 30
const burstMessages = 10_000
const paceNs = 100_000

class Failure extends Error {}

const parameters = new Map(process.argv.slice(2).filter((argument) => argument.includes('='))
  .map((argument) => [argument.slice(0, argument.indexOf('=')), argument.slice(argument.indexOf('=') + 1)]))
const text = (key) => parameters.get(key) ?? ''
const number = (key) => Number(text(key) || 0)

const reportFd = Number(process.env.FULMAR_BENCH_REPORT_FD ?? 1)

// The answer to the parent; nothing comes after it.
function report (message) {
  let data = Buffer.from(JSON.stringify(message) + '\n')
  while (data.length > 0) data = data.subarray(fs.writeSync(reportFd, data))
  process.exit(0)
}

// What sink_control() of bench/sink.hpp answers.
function ask (command) {
  fs.writeSync(reportFd, `? ${command}\n`)
  const buffer = Buffer.alloc(256)
  let answer = ''
  while (!answer.endsWith('\n')) {
    const size = fs.readSync(0, buffer)
    if (size === 0) throw new Failure('the benchmark is gone')
    answer += buffer.toString('utf8', 0, size)
  }
  answer = answer.trim()
  if (answer === 'error') throw new Failure(`the sink does not understand: ${command}`)
  return answer
}
const askNumber = (command) => Number(ask(command))

// hrtime.bigint() reads the steady clock, which the sink's times are of too.
const nowNs = () => Number(process.hrtime.bigint())

// Lets the event loop run until the condition holds; false at the end of the time.
async function waitUntil (condition, seconds) {
  const deadline = nowNs() + seconds * 1e9
  while (!condition()) {
    if (nowNs() > deadline) return false
    await yieldOnce()
  }
  return true
}

// As waitUntil, where the sink is asked: not as fast as possible.
async function pollUntil (condition, seconds) {
  const deadline = nowNs() + seconds * 1e9
  while (!condition()) {
    if (nowNs() > deadline) return false
    await sleep(1)
  }
  return true
}

// The median distance of two time stamps with nothing between them.
function clockNs () {
  const stamps = Array.from({ length: 1001 }, () => process.hrtime.bigint())
  const distances = stamps.slice(1).map((stamp, i) => Number(stamp - stamps[i]))
  return distances.sort((a, b) => a - b)[500]
}

function percentiles (values) {
  const sorted = Float64Array.from(values).sort()
  const pick = (fraction) => sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(fraction * sorted.length) - 1))]
  return { caller_ns_p50: pick(0.5), caller_ns_p99: pick(0.99), caller_ns_p999: pick(0.999), caller_ns_max: sorted.at(-1) }
}

// 16 buckets per power of two, as Histogram::distribution of bench/harness.hpp.
function distribution (values) {
  const buckets = new Map()
  for (const value of values) {
    const width = 2 ** Math.max(0, Math.floor(Math.log2(Math.max(1, value))) - 4)
    const top = (Math.floor(value / width) + 1) * width - 1
    buckets.set(top, (buckets.get(top) ?? 0) + 1)
  }
  return [...buckets].sort((a, b) => a[0] - b[0])
}

function load () {
  const folder = path.resolve(text('npm'))
  try {
    const version = JSON.parse(fs.readFileSync(path.join(folder, 'node_modules/mqtt/package.json'))).version
    return { mqtt: createRequire(path.join(folder, 'index.js'))('mqtt'), version }
  } catch {
    report({ failure: `not installed in ${folder}: ./dev bench does it with npm` })
  }
}
const { mqtt, version } = load()

class Client {
  completed = 0
  received = 0

  constructor (options = {}) {
    this.client = mqtt.connect({
      host: '127.0.0.1',
      port: number('port'),
      clientId: `bench-mqttjs-${options.number ?? 0}`,
      reconnectPeriod: 100,
      keepalive: 60
    })
    this.client.on('error', () => {}) // it goes on trying
    this.client.on('connect', () => this.client.stream.setNoDelay?.(true))
    this.client.on('message', () => { this.received += 1 })
  }

  get up () { return this.client.connected }

  async waitConnected () {
    if (!await waitUntil(() => this.up, 10)) throw new Failure('no CONNACK from the sink within 10 s')
    return this
  }
}

// What was published through one client, with back-pressure, and what the sink saw of it.
class Traffic {
  published = 0
  finishedNs = 0

  constructor (client, qos, outstandingMax, burst) {
    Object.assign(this, { client, qos, outstandingMax, burstSize: burst, payload: Buffer.alloc(number('payload'), 'x') })
    this.options = { qos }
    this.wakeAt = Infinity
    this.done = (error) => {
      if (!error) client.completed += 1
      if (client.completed >= this.wakeAt) this.wake()
    }
    this.arrivedBefore = askNumber('arrived')
    this.violationsBefore = askNumber('violations')
  }

  arrived () { return askNumber('arrived') - this.arrivedBefore }

  stuck () {
    return new Failure(`stuck for ${stuckSeconds} s: ${this.published} published, ${this.client.completed} completed, ` +
      `${this.arrived()} arrived at the sink`)
  }

  // Sleeps until so many are completed; false when nothing happens any more.
  async completed (count) {
    if (this.client.completed >= count) return true
    this.wakeAt = count
    const stuck = await new Promise((resolve) => {
      const timer = setTimeout(() => resolve(true), stuckSeconds * 1000)
      this.wake = () => {
        clearTimeout(timer)
        resolve(false)
      }
    })
    this.wakeAt = Infinity
    return !stuck
  }

  async publish (count, seconds) {
    const deadline = nowNs() + seconds * 1e9
    for (let i = 0; i < count; i++) {
      if (i % 64 === 0 && nowNs() >= deadline) return
      if (this.published - this.client.completed >= this.outstandingMax) {
        if (nowNs() >= deadline) return
        // Half of it free: single messages would be single writes.
        if (!await this.completed(this.published - Math.floor(this.outstandingMax / 2))) throw this.stuck()
      }
      this.client.client.publish(topic, this.payload, this.options, this.done)
      this.published += 1
    }
  }

  async drain () {
    if (!await this.completed(this.published)) throw this.stuck()
    this.finishedNs = nowNs()
    if (!await pollUntil(() => this.arrived() >= this.published, stuckSeconds)) throw this.stuck()
    const violations = askNumber('violations') - this.violationsBefore
    if (this.arrived() !== this.published || violations !== 0) {
      throw new Failure(`the sink received ${this.arrived()} messages of ${this.published} and ${violations} malformed packets`)
    }
    if (this.qos === 0) this.finishedNs = askNumber('last_publish_ns')
  }

  // The time of each call.
  burst (overhead, deadlineNs = Infinity) {
    const stamps = [process.hrtime.bigint()]
    for (let i = 0; i < this.burstSize; i++) {
      this.client.client.publish(topic, this.payload, this.options, this.done)
      const stamp = process.hrtime.bigint()
      stamps.push(stamp)
      if (Number(stamp) > deadlineNs) break
    }
    this.published += stamps.length - 1
    return stamps.slice(1).map((stamp, i) => Math.max(0, Number(stamp - stamps[i]) - overhead))
  }
}

// System calls so far, counted by the kernel; undefined where it does not.
function syscalls () {
  if (number('syscalls_fd') === 0) return undefined
  const count = Buffer.alloc(8)
  fs.readSync(number('syscalls_fd'), count)
  return Number(count.readBigUInt64LE())
}

const cpuSeconds = () => { const { user, system } = process.cpuUsage(); return (user + system) * 1e-6 }
// Found by trying 100 to 20,000.
const outstandingFor = (qos, window) => qos === 0 ? 100 : Math.min(window, 500)

async function publish (counts = false) {
  const [qos, window, seconds] = [number('qos'), number('window'), number('seconds')]
  const client = await new Client().waitConnected()
  const traffic = new Traffic(client, qos, number('outstanding') || outstandingFor(qos, window),
    qos === 0 ? burstMessages : Math.min(burstMessages, window))
  const overhead = clockNs()
  const times = []
  const begin = nowNs()
  while (!counts && (times.length === 0 || nowNs() - begin < seconds * 1e9)) {
    const warm = traffic.published >= burstMessages
    const burst = traffic.burst(overhead)
    await traffic.drain()
    if (warm) times.push(...burst)
    await sleep(2)
  }
  const before = traffic.published
  const warmBegin = nowNs()
  await traffic.publish(number('messages') / 4 || Infinity, seconds / 4)
  await traffic.drain()
  const rate = (traffic.published - before) / ((nowNs() - warmBegin) * 1e-9)
  const count = number('messages') || Math.max(1_000, Math.floor(rate * seconds))
  const cpu = cpuSeconds()
  const calls = syscalls()
  const beginNs = nowNs()
  await traffic.publish(count, 1e9)
  await traffic.drain()
  if (counts) return calls === undefined ? {} : { figures: { syscalls_per_message: (syscalls() - calls) / count } }
  return {
    figures: {
      ...percentiles(times),
      clock_ns: overhead,
      messages_per_s: count / ((traffic.finishedNs - beginNs) * 1e-9),
      cpu_s_per_million: (cpuSeconds() - cpu) / count * 1e6
    }
  }
}

async function flood (client, seconds) {
  const before = client.received
  ask(`flood ${number('qos')} ${number('payload')} ${Math.floor(seconds * 1000)}`)
  if (!await pollUntil(() => ask('flooding') === '0', stuckSeconds)) throw new Failure('the flood does not end')
  const count = askNumber('flooded')
  if (count === 0) throw new Failure('the sink knows of no subscription')
  if (!await pollUntil(() => client.received - before >= count, stuckSeconds)) {
    throw new Failure(`stuck for ${stuckSeconds} s: ${count} messages sent, ${client.received - before} handled`)
  }
  return { count, beganNs: askNumber('flood_began_ns'), finishedNs: nowNs() }
}

async function receive (counts = false) {
  const client = await new Client().waitConnected()
  await client.client.subscribeAsync(receiveTopic, { qos: number('qos') })
  await flood(client, number('seconds') / 4)
  const cpu = cpuSeconds()
  const calls = syscalls()
  const { count, beganNs, finishedNs } = await flood(client, number('seconds'))
  if (counts) return calls === undefined ? {} : { figures: { syscalls_per_message: (syscalls() - calls) / count } }
  return {
    figures: {
      messages_per_s: count / ((finishedNs - beganNs) * 1e-9),
      cpu_s_per_million: (cpuSeconds() - cpu) / count * 1e6
    }
  }
}

// An empty text, or what did not go as the state wants.
async function enter (state, client) {
  if (state === 'up') return ''
  if (state === 'zero_window') {
    ask('become stall')
    const payload = Buffer.alloc(16 * 1024, 'x')
    for (let i = 0; i < 4_000; i++) {
      let written = false
      client.client.publish(topic, payload, { qos: 0 }, () => { written = true })
      if (!await waitUntil(() => written, 0.05)) return ''
    }
    return 'the socket never filled up'
  }
  ask(state === 'silent' ? 'become silent' : 'become down')
  if (!await waitUntil(() => !client.up, 3)) return 'it did not notice within 3 s that the connection was closed'
  if (state === 'silent') {
    const gone = nowNs()
    if (!await pollUntil(() => Number(ask('reconnect').split(' ')[1]) > gone, 5)) {
      return 'it did not try to connect again within 5 s'
    }
  }
  return ''
}

async function latency () {
  const [state, manner, seconds] = [text('state'), text('manner'), number('seconds')]
  if (manner === 'paced_asleep') return { note: 'not possible: its timers know whole milliseconds' }
  const client = await new Client().waitConnected()
  const traffic = new Traffic(client, 1, 1_000, state === 'up' ? 1_000 : burstMessages)
  await traffic.publish(100_000, 0.3)
  await traffic.drain()
  const problem = await enter(state, client)
  if (problem) return { note: problem }
  await sleep(2)

  const overhead = clockNs()
  const deadlineNs = nowNs() + (manner === 'burst' ? 1 : 2) * seconds * 1e9
  const times = []
  let wanted = 0
  if (manner === 'burst') {
    wanted = state === 'up' ? 0 : 4 * burstMessages
    for (let bursts = 0; nowNs() < deadlineNs && (state === 'up' || bursts < 4); bursts++) {
      times.push(...traffic.burst(overhead, deadlineNs))
      if (state === 'up') await traffic.drain()
      await sleep(2)
    }
  } else {
    wanted = Math.floor(seconds * 1e9 / paceNs)
    let next = nowNs()
    while (times.length < wanted && nowNs() < deadlineNs) {
      next = Math.max(next + paceNs, nowNs())
      do { await yieldOnce() } while (nowNs() < next)
      const begin = process.hrtime.bigint()
      client.client.publish(topic, traffic.payload, traffic.options, traffic.done)
      times.push(Math.max(0, Number(process.hrtime.bigint() - begin) - overhead))
    }
  }
  return {
    figures: { ...percentiles(times), calls: times.length, refused: 0, clock_ns: overhead },
    distributions: { caller: distribution(times) },
    note: times.length < wanted ? `cut off after ${times.length} of ${wanted} calls` : ''
  }
}

async function reconnect () {
  const client = await new Client().waitConnected()
  const payload = Buffer.alloc(number('payload'), 'x')
  const samples = { reconnect_ms: [], outage_ms: [] }
  const end = nowNs() + number('seconds') * 1e9
  for (let i = 0; i < number('repeats') && (i === 0 || nowNs() < end); i++) {
    ask('become down')
    if (!await waitUntil(() => !client.up, 5)) throw new Failure('it did not notice within 5 s that the connection was closed')
    client.client.publish(topic, payload, { qos: 1 })
    await sleep(5 + (i * 23) % 50)
    ask('become acknowledge')
    const times = () => ask('reconnect').split(' ').map(Number)
    if (!await pollUntil(() => times()[2] !== 0, 10)) {
      throw new Failure(`nothing was published within 10 s after return ${i + 1} of the server`)
    }
    const [listening, accepted, acknowledged] = times()
    samples.reconnect_ms.push((acknowledged - accepted) * 1e-6)
    samples.outage_ms.push((acknowledged - listening) * 1e-6)
    await sleep(5)
  }
  return { samples }
}

function memoryNow () {
  const lines = fs.readFileSync('/proc/self/smaps_rollup', 'utf8')
  return { rss: Number(/^Rss:\s+(\d+)/m.exec(lines)[1]) * 1024, pss: Number(/^Pss:\s+(\d+)/m.exec(lines)[1]) * 1024 }
}

async function clients () {
  const before = memoryNow()
  const connectionsBefore = askNumber('connections')
  const connections = () => askNumber('connections') - connectionsBefore
  const count = number('clients')
  const deadline = nowNs() + number('seconds') * 1e9
  const left = () => (deadline - nowNs()) * 1e-9
  const kept = []
  for (let i = 0; i < count; i++) {
    kept.push(new Client({ number: i }))
    if (i % 100 === 99 && !await pollUntil(() => connections() + 100 >= kept.length, left())) break
  }
  if (!await pollUntil(() => connections() >= count, left())) {
    return { note: `only ${connections()} of ${count} clients were connected in time` }
  }
  await sleep(300)
  const after = memoryNow()
  return {
    figures: {
      rss_bytes_per_client: (after.rss - before.rss) / count,
      pss_bytes_per_client: (after.pss - before.pss) / count
    }
  }
}

async function waiting () {
  const [wanted, seconds] = [number('messages'), number('seconds')]
  const client = await new Client().waitConnected()
  ask('become down')
  await waitUntil(() => !client.up, 3)
  const payload = number('payload')
  const before = memoryNow()
  const begin = nowNs()
  let note = ''
  let count = 0
  // What its store holds: a message replaces an earlier one of the same packet identifier.
  const kept = () => client.client.outgoingStore?._inflights?.size ?? count
  for (; count < wanted; count++) {
    if (count % 64 === 0 && kept() < count) {
      note = `keeps ${kept()} messages: each further one replaces an earlier one`
      break
    }
    if (count % 64 === 0 && nowNs() - begin > seconds * 1e9) {
      note = `cut off after ${count} messages in ${seconds} s`
      break
    }
    // A payload of its own for each, as a user's would be: the library keeps a reference.
    client.client.publish(topic, Buffer.alloc(payload, 'x'), { qos: 1 })
    if (count % 1_000 === 999) await yieldOnce()
  }
  const elapsed = nowNs() - begin
  const after = memoryNow()
  return {
    figures: { bytes_per_message: (after.pss - before.pss) / kept(), messages: kept(), ns_per_message: elapsed / count },
    note
  }
}

const scenarios = {
  version: async () => ({ note: version }),
  publish: () => publish(),
  publish_counts: () => publish(true),
  receive: () => receive(),
  receive_counts: () => receive(true),
  latency,
  reconnect,
  clients,
  waiting
}

try {
  report(await scenarios[text('scenario')]())
} catch (problem) {
  report({ failure: problem instanceof Failure ? problem.message : String(problem) })
}
