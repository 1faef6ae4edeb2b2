'use strict';
(() => {
  const scene = JSON.parse(document.getElementById('scene').textContent);
  const byId = (id) => document.getElementById(id);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  const TONE = { 'OK': 'ok', 'NOK': 'nok', 'CANNOT-TELL': 'doubt' };
  const SIGN = { 'OK': '✓', 'NOK': '✕', 'CANNOT-TELL': '?' };
  const UNITS = { mm: 'mm', deg: '°', mm3: 'mm³' };
  const palette = new Uint8Array(bytes(scene.palette));
  const minus = (text) => String(text).replace(/-(?=[\d.])/g, '−');

  // ---- numbers

  const positions = (text) => {
    const steps = new Uint16Array(bytes(text));
    const place = new Float32Array(steps.length);
    for (let i = 0; i < steps.length; i += 1) {
      const axis = i % 3;
      place[i] = scene.low[axis] + (scene.high[axis] - scene.low[axis]) * steps[i] / 65535;
    }
    return place;
  };
  // Value and U = 2u, both to the second significant digit of U (GUM 7.2.6).
  const withUncertainty = (value, u) => {
    if (value === null) return '—';
    if (!u) return minus(Number(value.toPrecision(4)));
    const decimals = Math.min(4, Math.max(0, 1 - Math.floor(Math.log10(2 * u))));
    return `${minus(value.toFixed(decimals))} ± ${(2 * u).toFixed(decimals)}`;
  };
  const limits = (gauge) => {
    if (gauge.lower === null && gauge.upper === null) return 'no limits';
    const side = (limit) => minus(Number(limit.toPrecision(6)));
    const unit = UNITS[gauge.unit] || gauge.unit;
    if (gauge.lower === null) return `≤ ${side(gauge.upper)} ${unit}`;
    if (gauge.upper === null) return `≥ ${side(gauge.lower)} ${unit}`;
    return `${side(gauge.lower)} … ${side(gauge.upper)} ${unit}`;
  };

  // ---- colours

  const layerOf = (data) => ({
    place: positions(data.points),
    deviation: new Int16Array(bytes(data.deviation)),
    sigma: new Uint16Array(bytes(data.sigma)),
    shade: new Uint8Array(bytes(data.shade || '')),
  });
  const EMPTY = { points: '', deviation: '', sigma: '' };
  const layers = { surface: layerOf(scene.surface || EMPTY), points: layerOf(scene.cloud || EMPTY) };
  const sigmaMost = (() => {
    const sorted = Array.from(layers.points.sigma).filter((tenths) => tenths < 65535).sort((a, b) => a - b);
    return sorted.length ? Math.max(1, sorted[Math.floor(0.98 * (sorted.length - 1))]) : 1;
  })();
  const linear = (byte) => {
    const share = byte / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  };
  const paint = (into, at, rgb, shade) => { for (let k = 0; k < 3; k += 1) into[3 * at + k] = linear(rgb[k] * shade); };
  const swatch = (index) => palette.subarray(3 * index, 3 * index + 3);
  const ofDeviation = (micrometres) => {
    if (micrometres === -32768) return scene.unmeasured;
    const share = Math.max(-1, Math.min(1, micrometres / 1000 / scene.tolerance));
    return swatch(Math.round((share + 1) / 2 * 255));
  };
  // Uncertainty takes the upper half of the same scale: light is sure, dark is not.
  const ofSigma = (tenths) => (tenths === 65535 ? scene.unmeasured : swatch(128 + Math.round(127 * Math.min(1, tenths / sigmaMost))));
  const colorsOf = (mode, layer) => {
    const count = layer.place.length / 3;
    const colors = new Float32Array(3 * count);
    for (let i = 0; i < count; i += 1) {
      const rgb = mode === 'sigma' ? ofSigma(layer.sigma[i]) : ofDeviation(layer.deviation[i]);
      paint(colors, i, rgb, layer.shade.length ? layer.shade[i] / 255 : 1);
    }
    return colors;
  };
  const drawLegend = (mode) => {
    const pen = byId('scale').getContext('2d');
    for (let i = 0; i < 256; i += 1) {
      const rgb = mode === 'sigma' ? swatch(128 + Math.floor(i / 2)) : swatch(i);
      pen.fillStyle = `rgb(${rgb[0]},${rgb[1]},${rgb[2]})`;
      pen.fillRect(i, 0, 1, 12);
    }
    const words = mode === 'sigma'
      ? ['0', 'standard uncertainty / mm', `≥ ${(sigmaMost / 10000).toPrecision(2)}`]
      : [`−${scene.tolerance} missing`, 'deviation / mm', `+${scene.tolerance} excess`];
    ['low', 'middle', 'high'].forEach((side, i) => { byId(`scale-${side}`).textContent = words[i]; });
  };

  // ---- the list

  const SVG = 'http://www.w3.org/2000/svg';
  const shape = (name, attributes) => {
    const element = document.createElementNS(SVG, name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    return element;
  };
  const bar = (gauge) => {
    const svg = shape('svg', { class: 'bar', viewBox: '0 0 300 16', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    if (gauge.value === null || (gauge.lower === null && gauge.upper === null)) return svg;
    const reach = 2 * (gauge.u || 0);
    const known = [gauge.lower, gauge.upper, gauge.value - reach, gauge.value + reach].filter((x) => x !== null);
    if (gauge.lower === null) known.push(0);
    const low = Math.min(...known), span = (Math.max(...known) - low) || 1;
    const x = (value) => 12 + 276 * (value - low) / span;
    const from = gauge.lower === null ? 0 : x(gauge.lower), to = gauge.upper === null ? 300 : x(gauge.upper);
    svg.append(shape('rect', { x: from, y: 4, width: to - from, height: 8, fill: '#cfe3d5' }));
    [gauge.lower, gauge.upper].filter((limit) => limit !== null).forEach((limit) => {
      svg.append(shape('line', { x1: x(limit), x2: x(limit), y1: 1, y2: 15, stroke: '#14692f', 'stroke-width': 1.5 }));
    });
    svg.append(shape('line', { x1: x(gauge.value - reach), x2: x(gauge.value + reach), y1: 8, y2: 8, stroke: '#1d2733', 'stroke-width': 2 }));
    svg.append(shape('rect', { x: x(gauge.value) - 2, y: 3, width: 4, height: 10, fill: '#1d2733' }));
    return svg;
  };
  const text = (name, className, words) => {
    const element = document.createElement(name);
    element.className = className;
    element.textContent = words;
    return element;
  };
  let chosen = -1;
  const buttons = scene.gauges.map((gauge, number) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = `is-${TONE[gauge.decision]}`;
    button.setAttribute('aria-pressed', 'false');
    const head = text('span', 'line', '');
    head.append(text('b', '', `${SIGN[gauge.decision]} ${gauge.name}`));
    head.append(text('span', 'number', `${withUncertainty(gauge.value, gauge.u)} ${gauge.value === null ? '' : UNITS[gauge.unit] || gauge.unit}`));
    button.append(head, text('small', '', `${gauge.kind}, ${limits(gauge)}, ${gauge.decision}`), bar(gauge));
    const chance = gauge.conformance === null ? '' : `, probability of conformance ${(100 * gauge.conformance).toFixed(1)} %`;
    button.append(text('small', 'more', `${gauge.reason}${chance}`), text('small', 'more', gauge.note));
    button.addEventListener('click', () => choose(chosen === number ? -1 : number));
    const item = document.createElement('li');
    item.append(button);
    byId('gauges').append(item);
    return button;
  });

  // ---- the view

  let renderer = null;
  try {
    renderer = new THREE.WebGLRenderer({ canvas: byId('view'), antialias: true, preserveDrawingBuffer: true });
  } catch (error) {
    byId('lacking').textContent = 'This browser has no WebGL; the list beside and the report hold every number.';
    byId('lacking').hidden = false;
  }
  const low = new THREE.Vector3(...scene.low), high = new THREE.Vector3(...scene.high);
  const middle = low.clone().add(high).multiplyScalar(0.5);
  const size = Math.max(1e-3, high.distanceTo(low));
  const world = new THREE.Scene();
  world.background = new THREE.Color(0x262b33);
  const camera = new THREE.PerspectiveCamera(35, 1, size / 200, size * 20);
  camera.up.set(0, 0, 1);
  const controls = renderer ? new THREE.OrbitControls(camera, byId('view')) : null;
  const light = new THREE.DirectionalLight(0xffffff, 1.6);
  world.add(new THREE.HemisphereLight(0xffffff, 0xb8c0ca, 2.0), light);
  const geometryOf = (place) => new THREE.BufferGeometry().setAttribute('position', new THREE.BufferAttribute(place, 3));

  const cloud = new THREE.Points(geometryOf(layers.points.place), new THREE.PointsMaterial({ size: 2.6, sizeAttenuation: false, vertexColors: true }));
  // Places of the surface as small squares that just cover it, in front of the plain surface.
  // three.js sizes points for a field of view of 90 degrees, whatever the camera's is.
  const spread = (scene.surface ? 1.7 * scene.surface.spacing : 1) / Math.tan(camera.fov * Math.PI / 360);
  const skin = new THREE.Points(geometryOf(layers.surface.place), new THREE.PointsMaterial({ size: spread, vertexColors: true }));
  const body = [skin];
  if (scene.mesh) {
    const geometry = geometryOf(positions(scene.mesh.vertices));
    geometry.setIndex(new THREE.BufferAttribute(new Uint32Array(bytes(scene.mesh.triangles)), 1));
    const material = new THREE.MeshLambertMaterial({
      color: 0x8f97a2, side: THREE.DoubleSide, flatShading: true, polygonOffset: true, polygonOffsetFactor: 3, polygonOffsetUnits: 8,
    });
    body.push(new THREE.Mesh(geometry, material));
  }
  world.add(cloud, ...body);
  const hasBody = Boolean(scene.surface || scene.mesh);
  byId('mesh').checked = hasBody;
  byId('mesh').disabled = !hasBody;
  byId('points').checked = !scene.surface;
  cloud.visible = byId('points').checked;
  const marked = new THREE.Points(geometryOf(new Float32Array(0)), new THREE.PointsMaterial({ size: 5, sizeAttenuation: false, color: 0xf2b705, depthTest: false }));
  const lines = new THREE.LineSegments(geometryOf(new Float32Array(0)), new THREE.LineBasicMaterial({ color: 0x7a0fb0, depthTest: false }));
  marked.renderOrder = 1;
  lines.renderOrder = 2;
  world.add(marked, lines);

  const render = () => {
    if (!renderer) return;
    light.position.copy(camera.position);
    renderer.render(world, camera);
    document.documentElement.dataset.drawn = String(renderer.info.render.points);
  };
  const resize = () => {
    if (!renderer) return;
    const { clientWidth, clientHeight } = byId('stage');
    renderer.setPixelRatio(Math.min(2, window.devicePixelRatio || 1));
    renderer.setSize(clientWidth, clientHeight, false);
    camera.aspect = clientWidth / Math.max(1, clientHeight);
    camera.updateProjectionMatrix();
    render();
  };
  const home = () => {
    camera.position.copy(middle).add(new THREE.Vector3(0.55, -0.95, 0.85).normalize().multiplyScalar(1.9 * size));
    if (controls) {
      controls.target.copy(middle);
      controls.update();
    } else {
      camera.lookAt(middle);
    }
    render();
  };
  const show = (mode) => {
    [[cloud, layers.points], [skin, layers.surface]].forEach(([shown, layer]) => {
      shown.geometry.setAttribute('color', new THREE.BufferAttribute(colorsOf(mode, layer), 3));
    });
    drawLegend(mode);
    render();
  };
  const choose = (number) => {
    chosen = number;
    buttons.forEach((button, i) => button.setAttribute('aria-pressed', String(i === number)));
    const gauge = scene.gauges[number];
    marked.geometry.dispose();
    lines.geometry.dispose();
    marked.geometry = geometryOf(gauge && gauge.points ? positions(gauge.points) : new Float32Array(0));
    lines.geometry = geometryOf(new Float32Array(gauge ? gauge.lines : []));
    document.documentElement.dataset.gauge = gauge ? gauge.name : '';
    render();
  };

  document.querySelectorAll('input[name=mode]').forEach((input) => input.addEventListener('change', () => show(input.value)));
  byId('mesh').addEventListener('change', (event) => { body.forEach((one) => { one.visible = event.target.checked; }); render(); });
  byId('points').addEventListener('change', (event) => { cloud.visible = event.target.checked; render(); });
  byId('home').addEventListener('click', home);
  window.addEventListener('resize', resize);
  if (controls) controls.addEventListener('change', render);
  show('deviation');
  home();
  resize();
  // A gauge may be named behind the address: page.html#gauge=2 opens with it.
  const asked = /^#gauge=(\d+)$/.exec(window.location.hash);
  choose(asked && scene.gauges[Number(asked[1])] ? Number(asked[1]) : -1);
})();
