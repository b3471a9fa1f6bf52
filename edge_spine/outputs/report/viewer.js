// The 3D view of report.html: the spine in DICOM LPS (x to the patient's left, y to posterior, z to the head), in mm.
import {
  AmbientLight,
  BackSide,
  BufferAttribute,
  BufferGeometry,
  CatmullRomCurve3,
  ColorManagement,
  DirectionalLight,
  DoubleSide,
  FrontSide,
  Group,
  LinearSRGBColorSpace,
  Mesh,
  MeshBasicMaterial,
  MeshPhongMaterial,
  OrthographicCamera,
  Scene,
  Texture,
  TubeGeometry,
  Vector3,
  WebGLRenderer,
} from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";

const VIEWS = { coronal: [0, 0], sagittal: [90, 0], top: [0, 89.99] };
const FIRST_VIEW = [-32, 8];
const TURN_DEG_PER_S = 24;
const STEP_DEG = 6;
const ZOOM_STEP = 1.2;
const CAMERA_MM = 4000;
const MARGIN_MM = 40;
const BESIDE_MM = 28;
const TUBE_MM = 1.3;
const END_LINE_MM = 0.9;
const SCALE_BARS_MM = [200, 100, 50, 20, 10, 5];
const AXES = [["R", "L"], ["A", "P"], ["F", "H"]];
const RADIANS = Math.PI / 180;

const viewer = document.getElementById("viewer");
const find = (selector) => viewer.querySelector(selector);
const canvas = find("canvas");
viewer.classList.add("live");
// The page is painted first: starting WebGL can take a while.
requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(begin)));

function begin() {
  const context = canvas.getContext("webgl2", { antialias: true, alpha: false, powerPreference: "low-power" });
  if (context) return start(context);
  viewer.classList.remove("live");
  find(".no-webgl").hidden = false;
}

function start(context) {
  // Colours are used as they are, like those of the still pictures.
  ColorManagement.enabled = false;
  const data = JSON.parse(document.getElementById("scene").textContent);
  const stage = find(".stage");
  const renderer = new WebGLRenderer({ canvas, context });
  renderer.outputColorSpace = LinearSRGBColorSpace;
  renderer.setClearColor(0x000000);

  const vertices = unpack(Float32Array, data.vertices);
  const [middle, reach] = extent(vertices);
  const scene = new Scene();
  const camera = new OrthographicCamera(-1, 1, 1, -1, 1, 2 * CAMERA_MM);
  camera.up.set(0, 0, 1);
  const controls = new OrbitControls(camera, canvas);
  controls.target.copy(middle);
  controls.minZoom = 0.2;
  controls.maxZoom = 12;
  controls.rotateSpeed = 0.8;

  const lamp = new DirectionalLight(0xffffff, 2.1);
  lamp.position.set(-0.48, 0.52, 0.71);
  lamp.target = camera;
  const headlight = new Group();
  headlight.add(lamp);
  camera.add(headlight);
  scene.add(camera, new AmbientLight(0xffffff, 0.9));

  const parts = { surface: surface(data, vertices), plane: plane(data.plane), borders: new Group() };
  parts.centreline = new Group();
  parts.tangents = new Group();
  parts.levels = new Group();
  for (const { part, colour, points } of data.curves) {
    parts[part].add(tube(points, colour, TUBE_MM, part !== "borders"));
  }
  for (const end of data.ends) parts.tangents.add(tube(end.points, "#e8ecf1", END_LINE_MM, true));
  scene.add(...Object.values(parts));
  const labels = makeLabels(data, find(".labels"));

  let turning = false;
  let asked = false;
  let before = 0;
  let shown = true;

  function ask() {
    if (asked || !shown) return;
    asked = true;
    requestAnimationFrame(draw);
  }

  function draw(now) {
    asked = false;
    const elapsed = before ? Math.min((now - before) / 1000, 0.1) : 0;
    before = turning ? now : 0;
    if (turning) turn(TURN_DEG_PER_S * elapsed, 0);
    const ratio = Math.min(devicePixelRatio, 2);
    if (renderer.getPixelRatio() !== ratio) renderer.setPixelRatio(ratio);
    fade(parts.plane, ...angles());
    renderer.render(scene, camera);
    annotate();
    if (turning) ask();
  }

  function resize() {
    const { clientWidth: width, clientHeight: height } = stage;
    if (!width || !height) return;
    renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    renderer.setSize(width, height, false);
    const half = Math.max(reach.z + MARGIN_MM, ((reach.across + MARGIN_MM) * height) / width);
    Object.assign(camera, { left: (-half * width) / height, right: (half * width) / height, top: half, bottom: -half });
    camera.updateProjectionMatrix();
    ask();
  }

  // Azimuth 0 stands in front of the patient, 90 at the patient's left.
  function angles() {
    const { x, y, z } = camera.position.clone().sub(controls.target).normalize();
    return [Math.atan2(x, -y) / RADIANS, Math.asin(Math.max(-1, Math.min(1, z))) / RADIANS];
  }

  function look(azimuth, elevation) {
    const up = Math.max(-89.99, Math.min(89.99, elevation)) * RADIANS;
    const round = azimuth * RADIANS;
    const direction = new Vector3(Math.sin(round) * Math.cos(up), -Math.cos(round) * Math.cos(up), Math.sin(up));
    camera.position.copy(controls.target).addScaledVector(direction, CAMERA_MM);
    controls.update();
    ask();
  }

  function turn(azimuth, elevation) {
    const [a, e] = angles();
    look(a + azimuth, e + elevation);
  }

  function show(view) {
    setTurning(false);
    controls.target.copy(middle);
    const across = Math.min(camera.top, camera.right) / (reach.across + MARGIN_MM);
    camera.zoom = view === "top" ? Math.max(1, across) : 1;
    camera.updateProjectionMatrix();
    look(...VIEWS[view]);
  }

  function zoom(factor) {
    camera.zoom = Math.max(controls.minZoom, Math.min(controls.maxZoom, camera.zoom * factor));
    camera.updateProjectionMatrix();
    controls.update();
    ask();
  }

  function setTurning(on) {
    turning = on;
    before = 0;
    press(find("[data-turntable]"), on);
    ask();
  }

  function toggle(name) {
    parts[name].visible = !parts[name].visible;
    press(find(`[data-part="${name}"]`), parts[name].visible);
    ask();
  }

  function annotate() {
    const [azimuth, elevation] = angles();
    for (const [name, [a, e]] of Object.entries(VIEWS)) {
      const near = Math.abs(((azimuth - a + 540) % 360) - 180) < 0.5 && Math.abs(elevation - e) < 0.5;
      press(find(`[data-view="${name}"]`), near);
    }
    const right = new Vector3().setFromMatrixColumn(camera.matrixWorld, 0);
    const up = new Vector3().setFromMatrixColumn(camera.matrixWorld, 1);
    find(".edge-right").textContent = sides(right);
    find(".edge-left").textContent = sides(right.clone().negate());
    find(".edge-top").textContent = sides(up);
    find(".edge-bottom").textContent = sides(up.negate());
    const pixels = (stage.clientHeight * camera.zoom) / (camera.top - camera.bottom);
    const bar = SCALE_BARS_MM.find((mm) => mm * pixels <= 0.4 * stage.clientWidth) ?? SCALE_BARS_MM.at(-1);
    find(".scale").style.width = `${bar * pixels}px`;
    find(".scale-text").textContent = `${bar} mm`;
    // Names of levels stand in a column beside the spine; from above they would stand on each other.
    const column = middle.clone().addScaledVector(right, reach.across + BESIDE_MM).project(camera);
    for (const { element, part, at } of labels) {
      const place = at.clone().project(camera);
      const isLevel = part === "levels";
      element.hidden = !parts[part].visible || (isLevel && Math.abs(elevation) > 60);
      element.style.left = `${(((isLevel ? column : place).x + 1) / 2) * 100}%`;
      element.style.top = `${((1 - place.y) / 2) * 100}%`;
    }
  }

  const letters = { c: () => show("coronal"), s: () => show("sagittal"), t: () => show("top") };
  const partKeys = ["surface", "plane", "centreline", "borders", "tangents", "levels"];
  partKeys.forEach((name, index) => (letters[index + 1] = () => toggle(name)));
  Object.assign(letters, { "+": () => zoom(ZOOM_STEP), "=": () => zoom(ZOOM_STEP), "-": () => zoom(1 / ZOOM_STEP) });
  // Those that scroll or press buttons elsewhere act on the picture alone.
  const onPicture = {
    ArrowLeft: () => steer(-STEP_DEG, 0),
    ArrowRight: () => steer(STEP_DEG, 0),
    ArrowUp: () => steer(0, STEP_DEG),
    ArrowDown: () => steer(0, -STEP_DEG),
    " ": () => setTurning(!turning),
  };
  function steer(azimuth, elevation) {
    setTurning(false);
    turn(azimuth, elevation);
  }
  viewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const act = letters[event.key.toLowerCase()] ?? (event.target === canvas ? onPicture[event.key] : undefined);
    if (!act) return;
    event.preventDefault();
    act();
  });
  viewer.addEventListener("click", (event) => {
    const { view, part, turntable, zoom: factor } = event.target.closest("button")?.dataset ?? {};
    if (view) show(view);
    if (part) toggle(part);
    if (turntable !== undefined) setTurning(!turning);
    if (factor) zoom(factor === "in" ? ZOOM_STEP : 1 / ZOOM_STEP);
  });
  // A page can be scrolled past the picture: the wheel zooms only once it has been chosen.
  const choose = () => (controls.enableZoom = document.activeElement === canvas);
  canvas.addEventListener("wheel", choose, { capture: true, passive: true });
  canvas.addEventListener("pointerdown", () => {
    controls.enableZoom = true;
    canvas.focus({ preventScroll: true });
  });
  controls.addEventListener("start", () => setTurning(false));
  controls.addEventListener("change", ask);
  canvas.addEventListener("webglcontextrestored", ask);
  new ResizeObserver(resize).observe(stage);
  addEventListener("resize", resize);
  new IntersectionObserver(([entry]) => {
    shown = entry.isIntersecting;
    ask();
  }).observe(stage);
  const image = document.getElementById("plane");
  image.decode().then(() => {
    const texture = new Texture(image);
    texture.needsUpdate = true;
    for (const side of parts.plane.children) {
      side.material.map = texture;
      side.material.needsUpdate = true;
    }
    ask();
  });

  resize();
  look(...FIRST_VIEW);
  setTurning(!matchMedia("(prefers-reduced-motion: reduce)").matches);
}

function press(button, on) {
  if (button.getAttribute("aria-pressed") !== String(on)) button.setAttribute("aria-pressed", String(on));
}

function unpack(Kind, text) {
  return new Kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

function extent(vertices) {
  const low = new Vector3(Infinity, Infinity, Infinity);
  const high = low.clone().negate();
  const point = new Vector3();
  for (let i = 0; i < vertices.length; i += 3) {
    point.fromArray(vertices, i);
    low.min(point);
    high.max(point);
  }
  const half = high.clone().sub(low).multiplyScalar(0.5);
  return [low.add(half), { z: half.z, across: Math.hypot(half.x, half.y) }];
}

function surface(data, vertices) {
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(vertices, 3));
  geometry.setAttribute("color", new BufferAttribute(unpack(Uint8Array, data.colours), 3, true));
  geometry.setIndex(new BufferAttribute(unpack(Uint16Array, data.faces), 1));
  geometry.computeVertexNormals();
  return new Mesh(geometry, new MeshPhongMaterial({ vertexColors: true, specular: 0x2b2b2b, shininess: 28 }));
}

// The plane fades the more obliquely it is seen. From behind, where it would hide the spine, it is nearly clear.
function fade(plane, azimuth, elevation) {
  const facing = Math.cos(azimuth * RADIANS) * Math.cos(elevation * RADIANS);
  const seen = Math.max(0, Math.min(1, (Math.abs(facing) - 0.2) / 0.6));
  plane.children.forEach((side, index) => (side.material.opacity = index ? 0.3 * seen : seen));
}

function plane({ left, right, top, bottom, y }) {
  const geometry = new BufferGeometry();
  const corners = [left, y, bottom, right, y, bottom, right, y, top, left, y, top];
  geometry.setAttribute("position", new BufferAttribute(new Float32Array(corners), 3));
  geometry.setAttribute("uv", new BufferAttribute(new Float32Array([0, 0, 1, 0, 1, 1, 0, 1]), 2));
  geometry.setIndex([0, 1, 2, 0, 2, 3]);
  const group = new Group();
  for (const side of [FrontSide, BackSide]) {
    group.add(new Mesh(geometry, new MeshBasicMaterial({ side, transparent: true, depthWrite: false })));
  }
  return group;
}

function tube(points, color, radius, through) {
  const values = unpack(Float32Array, points);
  const path = Array.from({ length: values.length / 3 }, (_, i) => new Vector3().fromArray(values, 3 * i));
  const geometry = new TubeGeometry(new CatmullRomCurve3(path), Math.max(1, path.length - 1), radius, 8);
  const material = new MeshBasicMaterial({ color, side: DoubleSide, depthTest: !through, transparent: through });
  const mesh = new Mesh(geometry, material);
  mesh.renderOrder = through ? 1 : 0;
  return mesh;
}

function makeLabels(data, layer) {
  const tip = (points) => new Vector3().fromArray(unpack(Float32Array, points));
  const places = data.levels.map(({ level, at }) => [level, new Vector3(...at), "level"]);
  data.ends.forEach(({ level, points }) => places.push([level, tip(points), "end"]));
  data.apexes.forEach(({ text, at, convex, half_width }, index) => {
    const beside = new Vector3(...at).add(new Vector3(convex * (half_width + 22), 0, 0));
    places.push([text, beside, index ? "apex" : "apex largest"]);
  });
  return places.map(([text, at, kind]) => {
    const element = document.createElement("span");
    element.className = kind;
    element.textContent = text;
    layer.append(element);
    return { element, at, part: kind === "level" ? "levels" : "tangents" };
  });
}

// The letters of a direction, the strongest first, as on the edges of a DICOM viewer.
function sides(direction) {
  return direction
    .toArray()
    .map((value, axis) => [Math.abs(value), AXES[axis][value > 0 ? 1 : 0]])
    .filter(([strength]) => strength > 0.26)
    .sort((a, b) => b[0] - a[0])
    .map(([, letter]) => letter)
    .join("");
}
