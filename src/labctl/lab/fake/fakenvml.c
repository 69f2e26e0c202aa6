/* A stand-in for NVIDIA's libnvidia-ml.so.1 over a text file: for the virtual rack and for tests.
 *
 * Theory: the library holds no state. All of it is one file of "key=value" lines, read again by every call (so
 * somebody may change it under a running process) and rewritten under flock(2) by the calls that set something.
 * FAKE_NVML_STATE names the file; else it is /opt/lab/gpu/nvidia.state. What the file does not say is answered
 * with NOT_SUPPORTED, as a card answers that lacks it.
 *
 *   driver=580.95.05                 version of the loaded kernel module; absent: DRIVER_NOT_LOADED (9)
 *   cuda=13000                       version of CUDA
 *   count=2                          number of cards that were ever plugged in
 *   root_uid=1000                    a user who, besides root, may set things (tests need not run as root)
 *   clients=keep                     don't forget settings when the last client goes (see below)
 *   err.<function>=<nvmlReturn>      make a call fail that names no card
 *   delay.<function>=<ms>            ... or hang for so long first
 *   gpu<i>.<key>=<value>             a property of card i
 *   gpu<i>.removed=1                 the card is pulled: the others move up in the order, it is nowhere
 *   gpu<i>.err=<nvmlReturn>          every call on card i fails (15: GPU is lost)
 *   gpu<i>.err.<function>=<r>        one call on card i fails (4: no permission)
 *   gpu<i>.delay=<ms>                every call on card i hangs for so long first; one: gpu<i>.delay.<function>
 *   gpu<i>.procs=pid:bytes:name,...  compute processes
 *   gpu<i>.throttle=<bits>           what holds its clocks down (4: its cap, 0x20: heat, 0x40: too hot, 0x80: power)
 *   gpu<i>.remap_corr|uncorr|pending|failed=<n>, retired_pending=<0|1>, recovery=<0-7>, temp_mem=<C>, energy_mj=<n>
 *
 * What the real driver does and people trip over, this does too:
 * - The library's own version is that of its file, libnvidia-ml.so.VERSION, as drivers are packaged. Where it is
 *   not the loaded module's, nothing works: LIB_RM_VERSION_MISMATCH (18). A file without version fits every module.
 * - A card whose persistence mode is off forgets its cap and clock locks when the last client of the driver goes.
 * - Only root sets anything. A cap outside the card's range is INVALID_ARGUMENT. A card draws no more than its cap.
 * - Clock locks can be set but not asked for; the clocks that the card then shows are the only witness.
 *
 * FAKE_NVML_LOG names a file that gets one line for each call that sets something (what a dry run must not do);
 * without it, beside the default state file, nvidia.log.
 *
 * gcc -O1 -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 fakenvml.c
 */
#define _GNU_SOURCE
#include <features.h>
/* From glibc 2.38 on these would bind strtoul and sscanf to names that an older host's libc does not have. */
#undef __GLIBC_USE_C2X_STRTOL
#define __GLIBC_USE_C2X_STRTOL 0
#undef __GLIBC_USE_C23_STRTOL
#define __GLIBC_USE_C23_STRTOL 0
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { OK, UNINIT, INVAL, NOTSUP, NOPERM, ALREADY, NOTFOUND, TOOSMALL, NOFUNC = 13, NOTLOADED = 9, TIMEOUT = 10, LOST = 15, MISMATCH = 18, VERSION = 25 };
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int ret;
#define MAXGPU 16
static struct gpu { int i; } gpus[MAXGPU];
typedef struct gpu *dev;
static int inited;

/* ---- state file ------------------------------------------------------- */
#define ROOM (1 << 17)
static _Thread_local char text[ROOM]; /* the file as the current call found it */

static const char *place(void) {
	const char *p = getenv("FAKE_NVML_STATE");
	return p ? p : "/opt/lab/gpu/nvidia.state";
}
static void refresh(void) {
	int fd = open(place(), O_RDONLY | O_CLOEXEC);
	ssize_t n = 0;
	if (fd >= 0) {
		flock(fd, LOCK_SH);
		n = read(fd, text, sizeof text - 1);
		close(fd);
	}
	text[n > 0 ? n : 0] = 0;
}
static const char *lookup(const char *key) { /* value of key, or NULL; valid until the next look */
	static _Thread_local char val[4096];
	size_t k = strlen(key);
	for (char *l = text; l && *l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL)
		if (!strncmp(l, key, k) && l[k] == '=') {
			size_t n = strcspn(l + k + 1, "\n");
			if (n >= sizeof val) n = sizeof val - 1;
			memcpy(val, l + k + 1, n);
			val[n] = 0;
			return val;
		}
	return NULL;
}
static const char *prop(dev d, const char *key) {
	char k[128];
	snprintf(k, sizeof k, "gpu%d.%s", d->i, key);
	return lookup(k);
}
static void put(dev d, const char *key, const char *value) { /* NULL: take the line away */
	static _Thread_local char out[ROOM], line[8192];
	char k[128];
	FILE *f = fopen(place(), "r+e");
	if (!f) return;
	flock(fileno(f), LOCK_EX);
	snprintf(k, sizeof k, "gpu%d.%s=", d->i, key);
	size_t n = 0;
	while (fgets(line, sizeof line, f))
		if (strncmp(line, k, strlen(k)) && n + strlen(line) < sizeof out - 256) n += sprintf(out + n, "%s", line);
	if (value) n += sprintf(out + n, "%s%s\n", k, value);
	rewind(f);
	fwrite(out, 1, n, f);
	fflush(f);
	if (ftruncate(fileno(f), n)) {}
	fclose(f);
	refresh();
}
static void record(dev d, const char *fn, const char *what) {
	const char *lg = getenv("FAKE_NVML_LOG");
	FILE *f = lg || !getenv("FAKE_NVML_STATE") ? fopen(lg ? lg : "/opt/lab/gpu/nvidia.log", "ae") : NULL;
	if (!f) return;
	fprintf(f, "%s gpu%d %s\n", fn, d->i, what);
	fclose(f);
}
static ret store(dev d, const char *fn, const char *key, u64 v) {
	char s[32];
	snprintf(s, sizeof s, "%llu", v);
	put(d, key, s);
	record(d, fn, s);
	return OK;
}
static int may_set(void) {
	const char *v = lookup("root_uid");
	return geteuid() == 0 || (v && geteuid() == (uid_t)strtoul(v, NULL, 10));
}
static u32 slots(void) { /* cards that were ever there */
	const char *v = lookup("count");
	u32 n = v ? atoi(v) : 0;
	return n < MAXGPU ? n : MAXGPU;
}
static int there(u32 i) { const char *v = prop(&gpus[i], "removed"); return !v || !atoi(v); }

/* ---- clients: the driver forgets settings of a card without persistence mode when the last of them goes ---- */
static int client = -1;
static void forget(void) {
	const char *kept = lookup("clients");
	char dflt[64];
	if ((kept && !strcmp(kept, "keep")) || !may_set()) return;
	for (u32 i = 0; i < slots(); i++) {
		const char *v = prop(&gpus[i], "persistence");
		if (!v || atoi(v) || !(v = prop(&gpus[i], "power_default_mw"))) continue;
		snprintf(dflt, sizeof dflt, "%s", v);
		if ((v = prop(&gpus[i], "power_limit_mw")) && strcmp(v, dflt)) put(&gpus[i], "power_limit_mw", dflt);
		if (prop(&gpus[i], "lock_max")) put(&gpus[i], "lock_min", NULL), put(&gpus[i], "lock_max", NULL);
	}
}
static void arrive(void) {
	char p[PATH_MAX];
	snprintf(p, sizeof p, "%s.clients", place());
	client = open(p, O_RDONLY | O_CREAT | O_CLOEXEC, 0644);
	if (client < 0) return;
	if (!flock(client, LOCK_EX | LOCK_NB)) forget(); /* whoever was here died without a word */
	flock(client, LOCK_SH);
}
static void leave(void) {
	if (client < 0) return;
	refresh();
	flock(client, LOCK_UN);
	if (!flock(client, LOCK_EX | LOCK_NB)) forget();
	close(client);
	client = -1;
}
__attribute__((destructor)) static void ended(void) { leave(); }

/* ---- versions --------------------------------------------------------- */
static const char *own_version(void) { /* of the file libnvidia-ml.so.580.95.05; NULL for one without version */
	static char real[PATH_MAX];
	Dl_info me;
	if (!dladdr((void *)own_version, &me) || !realpath(me.dli_fname, real)) return NULL;
	char *v = strstr(real, "libnvidia-ml.so.");
	return v && strchr(v + 16, '.') ? v + 16 : NULL;
}
static ret fits(void) {
	const char *own = own_version(), *module = lookup("driver");
	return !module ? NOTLOADED : own && strcmp(own, module) ? MISMATCH : OK;
}

/* ---- the checks every call makes -------------------------------------- */
static ret sysgate(const char *fn) {
	char k[128];
	const char *v;
	refresh();
	snprintf(k, sizeof k, "delay.%s", fn);
	if ((v = lookup(k))) usleep(1000 * atoi(v));
	snprintf(k, sizeof k, "err.%s", fn);
	if ((v = lookup(k))) return atoi(v);
	return inited || !strncmp(fn, "nvmlInit", 8) ? OK : UNINIT;
}
static ret gate(dev d, const char *fn) {
	char k[128];
	const char *v;
	ret r = sysgate(fn);
	if (r) return r;
	if (d < gpus || d >= gpus + MAXGPU) return INVAL;
	snprintf(k, sizeof k, "delay.%s", fn);
	if ((v = prop(d, k)) || (v = prop(d, "delay"))) usleep(1000 * atoi(v));
	if (!there(d->i)) return LOST; /* pulled under a client that knew it */
	if ((v = prop(d, "err"))) return atoi(v);
	snprintf(k, sizeof k, "err.%s", fn);
	if ((v = prop(d, k))) return atoi(v);
	return OK;
}
static ret num(dev d, const char *fn, const char *key, u64 *out) {
	ret r = gate(d, fn);
	const char *v;
	if (r) return r;
	if (!(v = prop(d, key))) return NOTSUP;
	*out = strtoull(v, NULL, 0);
	return OK;
}
static ret copy(const char *v, char *buf, u32 n) {
	if (!v) return NOTSUP;
	if (!buf) return INVAL;
	if (strlen(v) >= n) return TOOSMALL;
	strcpy(buf, v);
	return OK;
}
#define U32(fn, key) ret fn(dev d, u32 *o) { u64 v; ret r = num(d, #fn, key, &v); if (!r) *o = v; return r; }
#define U64(fn, key) ret fn(dev d, u64 *o) { return num(d, #fn, key, o); }
#define STR(fn, key) ret fn(dev d, char *b, u32 n) { ret r = gate(d, #fn); return r ? r : copy(prop(d, key), b, n); }
#define PAIR(fn, a, b) ret fn(dev d, u32 *x, u32 *y) { u64 v; ret r = num(d, #fn, a, &v); if (r) return r; *x = v; \
	r = num(d, #fn, b, &v); if (!r) *y = v; return r; }
#define KIND(fn, table) ret fn(dev d, u32 kind, u32 *o) { static const char *const t[] = table; u64 v; ret r; \
	r = kind < sizeof t / sizeof *t ? num(d, #fn, t[kind], &v) : INVAL; if (!r) *o = v; return r; }
#define LIST(...) { __VA_ARGS__ }
#define ALIAS(new, old) extern __typeof__(old) new __attribute__((alias(#old)));

/* ---- library and system ----------------------------------------------- */
ret nvmlInitWithFlags(u32 flags) {
	(void)flags;
	ret r = sysgate("nvmlInitWithFlags");
	for (int i = 0; i < MAXGPU; i++) gpus[i].i = i;
	if (!r) r = fits();
	if (!r && !inited++) arrive();
	return r;
}
ret nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
ALIAS(nvmlInit, nvmlInit_v2)
ret nvmlShutdown(void) { 
	if (!inited) return UNINIT;
	if (!--inited) leave();
	return OK;
 }
const char *nvmlErrorString(ret r) {
	static const char *const s[] = { "Success", "Uninitialized", "Invalid Argument", "Not Supported",
		"Insufficient Permissions", "Already Initialized", "Not Found", "Insufficient Size",
		"Insufficient External Power", "Driver Not Loaded", "Timeout", "Interrupt Request Issue",
		"NVML Shared Library Not Found", "Function Not Found", "Corrupted infoROM", "GPU is lost",
		"GPU requires reset", "GPU access blocked by the operating system", "Driver/library version mismatch",
		"In use by another client", "Insufficient Memory", "No data", "vGPU ECC is not supported",
		"Insufficient Resources", "Frequency Not Supported", "Argument Version Mismatch", "Deprecated" };
	return r >= 0 && r < (ret)(sizeof s / sizeof *s) ? s[r] : "Unknown Error";
}
ret nvmlSystemGetDriverVersion(char *b, u32 n) { ret r = sysgate(__func__); return r ? r : copy(lookup("driver"), b, n); }
ret nvmlSystemGetNVMLVersion(char *b, u32 n) {
	ret r = sysgate(__func__);
	char v[64] = "";
	const char *cuda = lookup("cuda"), *driver;
	if (cuda) snprintf(v, sizeof v, "%d.", atoi(cuda) / 1000);
	if ((driver = lookup("driver"))) snprintf(v + strlen(v), sizeof v - strlen(v), "%s", driver);
	return r ? r : copy(v, b, n);
}
ret nvmlSystemGetCudaDriverVersion_v2(u32 *v) {
	ret r = sysgate(__func__);
	const char *s = lookup("cuda");
	if (!r && s) *v = atoi(s);
	return r ? r : s ? OK : NOTSUP;
}
ALIAS(nvmlSystemGetCudaDriverVersion, nvmlSystemGetCudaDriverVersion_v2)
ret nvmlSystemGetProcessName(u32 pid, char *b, u32 n);

/* ---- enumeration ------------------------------------------------------ */
static dev nth(u32 index) { /* the card that the driver shows under this number */
	for (u32 i = 0; i < slots(); i++)
		if (there(i) && !index--) return &gpus[i];
	return NULL;
}
static u32 number_of(dev d) {
	u32 n = 0;
	for (int i = 0; i < d->i; i++) n += there(i);
	return n;
}
ret nvmlDeviceGetCount_v2(u32 *n) {
	ret r = sysgate(__func__);
	for (*n = 0; !r && nth(*n); ++*n) {}
	return r;
}
ALIAS(nvmlDeviceGetCount, nvmlDeviceGetCount_v2)
ret nvmlDeviceGetHandleByIndex_v2(u32 i, dev *d) {
	ret r = sysgate(__func__);
	if (r) return r;
	if (!(*d = nth(i))) return INVAL;
	return gate(*d, __func__);
}
ALIAS(nvmlDeviceGetHandleByIndex, nvmlDeviceGetHandleByIndex_v2)
static int same(const char *key, const char *a, const char *b) { /* 0000:3b:00.0 is 00000000:3B:00.0 */
	u32 x[3], y[3];
	return strcmp(key, "bus_id") ? !strcasecmp(a, b)
		: sscanf(a, "%x:%x:%x", x, x + 1, x + 2) == 3 && sscanf(b, "%x:%x:%x", y, y + 1, y + 2) == 3 && !memcmp(x, y, sizeof x);
}
static ret by(const char *fn, const char *key, const char *val, dev *d) {
	ret r = sysgate(fn);
	for (u32 i = 0; !r && i < slots(); i++) {
		const char *v = there(i) ? prop(&gpus[i], key) : NULL;
		if (v && same(key, v, val)) return *d = &gpus[i], gate(*d, fn);
	}
	return r ? r : NOTFOUND;
}
ret nvmlDeviceGetHandleByUUID(const char *u, dev *d) { return by(__func__, "uuid", u, d); }
ret nvmlDeviceGetHandleByPciBusId_v2(const char *b, dev *d) { return by(__func__, "bus_id", b, d); }
ALIAS(nvmlDeviceGetHandleByPciBusId, nvmlDeviceGetHandleByPciBusId_v2)
ret nvmlDeviceGetHandleBySerial(const char *s, dev *d) { return by(__func__, "serial", s, d); }
ret nvmlDeviceGetIndex(dev d, u32 *i) { ret r = gate(d, __func__); if (!r) *i = number_of(d); return r; }
ret nvmlDeviceGetMinorNumber(dev d, u32 *i) { ret r = gate(d, __func__); if (!r) *i = d->i; return r; }

/* ---- identity --------------------------------------------------------- */
STR(nvmlDeviceGetName, "name")
STR(nvmlDeviceGetUUID, "uuid")
STR(nvmlDeviceGetSerial, "serial")
STR(nvmlDeviceGetVbiosVersion, "vbios")
STR(nvmlDeviceGetBoardPartNumber, "part_number")
U32(nvmlDeviceGetBrand, "brand")
U32(nvmlDeviceGetArchitecture, "arch")
PAIR(nvmlDeviceGetCudaComputeCapability, "cc_major", "cc_minor")
struct pci { char legacy[16]; u32 domain, bus, device, id, subsys; char busid[32]; };
ret nvmlDeviceGetPciInfo_v3(dev d, struct pci *p) {
	ret r = gate(d, __func__);
	const char *v;
	u64 n;
	if (r) return r;
	if (!(v = prop(d, "bus_id"))) return NOTSUP; /* 00000000:3B:00.0 */
	memset(p, 0, sizeof *p);
	snprintf(p->busid, sizeof p->busid, "%s", v);
	snprintf(p->legacy, sizeof p->legacy, "%.12s", strlen(v) > 4 ? v + 4 : v);
	sscanf(v, "%x:%x:%x", &p->domain, &p->bus, &p->device);
	if (!num(d, __func__, "pci_id", &n)) p->id = n;
	if (!num(d, __func__, "pci_subsys", &n)) p->subsys = n;
	return OK;
}
ALIAS(nvmlDeviceGetPciInfo_v2, nvmlDeviceGetPciInfo_v3)
ALIAS(nvmlDeviceGetPciInfo, nvmlDeviceGetPciInfo_v3)
struct pciext { u32 version, domain, bus, device, id, subsys, base, sub; char busid[32]; };
ret nvmlDeviceGetPciInfoExt(dev d, struct pciext *e) {
	struct pci p;
	if (e->version != (sizeof *e | 1u << 24)) return VERSION;
	ret r = nvmlDeviceGetPciInfo_v3(d, &p);
	if (r) return r;
	e->domain = p.domain, e->bus = p.bus, e->device = p.device, e->id = p.id, e->subsys = p.subsys;
	e->base = 3, e->sub = 0;
	memcpy(e->busid, p.busid, sizeof e->busid);
	return OK;
}

/* ---- memory, utilisation, clocks, temperature ------------------------- */
struct mem { u64 total, free, used; };
ret nvmlDeviceGetMemoryInfo(dev d, struct mem *m) {
	ret r = num(d, __func__, "mem_total", &m->total);
	if (r || (r = num(d, __func__, "mem_used", &m->used))) return r;
	m->free = m->total - m->used;
	return OK;
}
struct mem2 { u32 version; u64 total, reserved, free, used; };
ret nvmlDeviceGetMemoryInfo_v2(dev d, struct mem2 *m) {
	if (m->version != (sizeof *m | 2u << 24)) return VERSION;
	ret r = num(d, __func__, "mem_total", &m->total);
	if (r || (r = num(d, __func__, "mem_used", &m->used))) return r;
	if (num(d, __func__, "mem_reserved", &m->reserved)) m->reserved = 0;
	m->free = m->total - m->used - m->reserved;
	return OK;
}
ret nvmlDeviceGetBAR1MemoryInfo(dev d, struct mem *m) { /* total, free, used */
	ret r = num(d, __func__, "bar1_total", &m->total);
	if (!r) m->used = 0, m->free = m->total;
	return r;
}
struct util { u32 gpu, memory; };
ret nvmlDeviceGetUtilizationRates(dev d, struct util *u) {
	u64 v;
	ret r = num(d, __func__, "util_gpu", &v);
	if (r) return r;
	u->gpu = v;
	if (!(r = num(d, __func__, "util_mem", &v))) u->memory = v;
	return r;
}
#define CLOCKS LIST("clock_gr", "clock_sm", "clock_mem", "clock_video")
#define MAXCLOCKS LIST("clock_gr_max", "clock_sm_max", "clock_mem_max", "clock_video_max")
ret nvmlDeviceGetClockInfo(dev d, u32 kind, u32 *o) { /* the shader's clock goes with the graphics clock */
	static const char *const t[] = CLOCKS;
	u64 v, low, high;
	ret r = kind < sizeof t / sizeof *t ? num(d, __func__, t[kind], &v) : INVAL;
	if (r) return r;
	if (kind < 2 && !num(d, __func__, "lock_min", &low) && !num(d, __func__, "lock_max", &high))
		v = v < low ? low : v > high ? high : v;
	*o = v;
	return OK;
}
ret nvmlDeviceSetGpuLockedClocks(dev d, u32 low, u32 high) {
	u64 max;
	ret r = num(d, __func__, "clock_gr_max", &max);
	if (r) return r;
	if (!may_set()) return NOPERM;
	if (low > high) return INVAL;
	store(d, __func__, "lock_min", low < max ? low : max);
	return store(d, __func__, "lock_max", high < max ? high : max);
}
ret nvmlDeviceResetGpuLockedClocks(dev d) {
	u64 max;
	ret r = num(d, __func__, "clock_gr_max", &max);
	if (r) return r;
	if (!may_set()) return NOPERM;
	put(d, "lock_min", NULL);
	put(d, "lock_max", NULL);
	record(d, __func__, "reset");
	return OK;
}
KIND(nvmlDeviceGetMaxClockInfo, MAXCLOCKS)
KIND(nvmlDeviceGetTemperature, LIST("temp"))
static ret threshold(dev d, const char *fn, u32 kind, u32 *o) {
	static const char *const t[] = { "temp_shutdown", "temp_slowdown", "temp_mem_max", "temp_gpu_max" };
	u64 v;
	ret r = kind < sizeof t / sizeof *t ? num(d, fn, t[kind], &v) : NOTSUP;
	if (!r) *o = v;
	return r;
}
ret nvmlDeviceGetTemperatureThreshold(dev d, u32 kind, u32 *o) { return threshold(d, __func__, kind, o); }
struct temp { u32 version, sensor; int temperature; };
ret nvmlDeviceGetTemperatureV(dev d, struct temp *t) {
	u32 v;
	if (t->version != (sizeof *t | 1u << 24)) return VERSION;
	ret r = nvmlDeviceGetTemperature(d, t->sensor, &v);
	if (!r) t->temperature = v;
	return r;
}
U32(nvmlDeviceGetFanSpeed, "fan")
U32(nvmlDeviceGetPerformanceState, "pstate")
U64(nvmlDeviceGetCurrentClocksThrottleReasons, "throttle")
U64(nvmlDeviceGetSupportedClocksThrottleReasons, "throttle_supported")
ALIAS(nvmlDeviceGetCurrentClocksEventReasons, nvmlDeviceGetCurrentClocksThrottleReasons)
ALIAS(nvmlDeviceGetSupportedClocksEventReasons, nvmlDeviceGetSupportedClocksThrottleReasons)

/* ---- power ------------------------------------------------------------ */
ret nvmlDeviceGetEnforcedPowerLimit(dev d, u32 *o) {
	u64 v, own;
	ret r = num(d, __func__, "power_limit_mw", &v);
	if (r) return r;
	if (!num(d, __func__, "power_enforced_mw", &own) && own < v) v = own;
	*o = v;
	return OK;
}
ret nvmlDeviceGetPowerUsage(dev d, u32 *o) {
	u64 v;
	u32 most;
	ret r = num(d, __func__, "power_mw", &v);
	if (r) return r;
	*o = !nvmlDeviceGetEnforcedPowerLimit(d, &most) && most < v ? most : v;
	return OK;
}
U32(nvmlDeviceGetPowerState, "pstate")
U32(nvmlDeviceGetPowerManagementMode, "power_mode")
U32(nvmlDeviceGetPowerManagementLimit, "power_limit_mw")
U32(nvmlDeviceGetPowerManagementDefaultLimit, "power_default_mw")
PAIR(nvmlDeviceGetPowerManagementLimitConstraints, "power_min_mw", "power_max_mw")
U64(nvmlDeviceGetTotalEnergyConsumption, "energy_mj")
ret nvmlDeviceSetPowerManagementLimit(dev d, u32 mw) {
	u64 lo, hi;
	ret r = num(d, __func__, "power_min_mw", &lo);
	if (r || (r = num(d, __func__, "power_max_mw", &hi))) return r;
	if (!may_set()) return NOPERM;
	if (mw < lo || mw > hi) return INVAL;
	return store(d, __func__, "power_limit_mw", mw);
}
struct pval { u32 version; unsigned char scope; u32 mw; }; /* scope is one byte: what pads it is not set */
ret nvmlDeviceSetPowerManagementLimit_v2(dev d, struct pval *v) {
	return v->version != (sizeof *v | 2u << 24) ? VERSION : v->scope ? NOTSUP : nvmlDeviceSetPowerManagementLimit(d, v->mw);
}
U32(nvmlDeviceGetPersistenceMode, "persistence")
ret nvmlDeviceSetPersistenceMode(dev d, u32 on) {
	ret r = gate(d, __func__);
	u64 v;
	if (r || (r = num(d, __func__, "persistence", &v))) return r;
	return on > 1 ? INVAL : !may_set() ? NOPERM : store(d, __func__, "persistence", on);
}
U32(nvmlDeviceGetComputeMode, "compute_mode")

/* ---- PCIe ------------------------------------------------------------- */
U32(nvmlDeviceGetCurrPcieLinkGeneration, "pcie_gen")
U32(nvmlDeviceGetCurrPcieLinkWidth, "pcie_width")
U32(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_gen_max")
U32(nvmlDeviceGetGpuMaxPcieLinkGeneration, "pcie_gen_max")
U32(nvmlDeviceGetMaxPcieLinkWidth, "pcie_width_max")
U32(nvmlDeviceGetPcieReplayCounter, "pcie_replay")
KIND(nvmlDeviceGetPcieThroughput, LIST("pcie_tx_kbs", "pcie_rx_kbs"))
ret nvmlDeviceGetTopologyCommonAncestor(dev a, dev b, u32 *l) {
	ret r = gate(a, __func__);
	if (r || (r = gate(b, __func__))) return r;
	char k[32];
	snprintf(k, sizeof k, "topo%d", b->i);
	const char *v = prop(a, k);
	*l = v ? atoi(v) : 50; /* SYSTEM */
	return OK;
}

/* ---- NVLink: links 0..nvlinks-1 exist, of which those in nvlink_up (bits) are active -------- */
static ret link_of(dev d, const char *fn, u32 link) {
	u64 n;
	ret r = num(d, fn, "nvlinks", &n);
	return r ? r : link >= n ? INVAL : OK;
}
ret nvmlDeviceGetNvLinkState(dev d, u32 link, u32 *active) {
	u64 up;
	ret r = link_of(d, __func__, link);
	if (r) return r;
	*active = !num(d, __func__, "nvlink_up", &up) && up >> link & 1;
	return OK;
}
ret nvmlDeviceGetNvLinkVersion(dev d, u32 link, u32 *o) {
	u64 v;
	ret r = link_of(d, __func__, link);
	if (!r && !(r = num(d, __func__, "nvlink_version", &v))) *o = v;
	return r;
}
ret nvmlDeviceGetNvLinkRemotePciInfo_v2(dev d, u32 link, struct pci *p) {
	u32 up;
	ret r = nvmlDeviceGetNvLinkState(d, link, &up);
	const char *v;
	if (r) return r;
	if (!up || !(v = prop(d, "nvlink_peer"))) return NOTSUP;
	return nvmlDeviceGetPciInfo_v3(&gpus[atoi(v) % MAXGPU], p);
}

/* ---- ECC and health --------------------------------------------------- */
PAIR(nvmlDeviceGetEccMode, "ecc", "ecc_pending")
ret nvmlDeviceSetEccMode(dev d, u32 on) { /* counts from the next boot on */
	u64 v;
	ret r = num(d, __func__, "ecc", &v);
	return r ? r : on > 1 ? INVAL : !may_set() ? NOPERM : store(d, __func__, "ecc_pending", on);
}
static ret ecc(dev d, const char *fn, u32 type, u32 counter, u64 *o) {
	static const char *const k[] = { "ecc_corr_volatile", "ecc_corr_aggregate", "ecc_uncorr_volatile", "ecc_uncorr_aggregate" };
	u64 on;
	ret r = num(d, fn, "ecc", &on);
	if (r) return r;
	return type > 1 || counter > 1 ? INVAL : !on ? NOTSUP : num(d, fn, k[2 * type + counter], o);
}
ret nvmlDeviceGetTotalEccErrors(dev d, u32 type, u32 counter, u64 *o) { return ecc(d, __func__, type, counter, o); }
ret nvmlDeviceGetMemoryErrorCounter(dev d, u32 type, u32 counter, u32 loc, u64 *o) {
	ret r = ecc(d, __func__, type, counter, o);
	if (!r && loc != 2) *o = 0; /* all of them are in device memory */
	return r;
}
ret nvmlDeviceGetRemappedRows(dev d, u32 *corr, u32 *unc, u32 *pending, u32 *failed) {
	u64 v;
	ret r = num(d, __func__, "remap_corr", &v);
	if (r) return r;
	*corr = v;
	*unc = num(d, __func__, "remap_uncorr", &v) ? 0 : v;
	*pending = num(d, __func__, "remap_pending", &v) ? 0 : v;
	*failed = num(d, __func__, "remap_failed", &v) ? 0 : v;
	return OK;
}

ret nvmlDeviceGetRetiredPagesPendingStatus(dev d, u32 *pending) { /* cards with ECC before Ampere have it */
	u64 v;
	ret r = num(d, __func__, "retired_pending", &v);
	if (!r) *pending = v;
	return r;
}

/* ---- processes -------------------------------------------------------- */
struct proc { u32 pid; u64 used; u32 gi, ci; };
static const char *procs(dev d, u32 i, struct proc *p, char *name, size_t n) { /* i-th process of d, or NULL */
	const char *v = prop(d, "procs");
	for (; v && *v && i; i--) v = strchr(v, ',') ? strchr(v, ',') + 1 : NULL;
	if (!v || !*v) return NULL;
	memset(p, 0, sizeof *p);
	p->gi = p->ci = ~0u;
	char nm[256] = "";
	if (sscanf(v, "%u:%llu:%255[^,\n]", &p->pid, &p->used, nm) < 2) return NULL;
	snprintf(name, n, "%s", nm);
	return v;
}
static ret list(dev d, const char *fn, u32 *n, struct proc *out) {
	ret r = gate(d, fn);
	struct proc p;
	char nm[256];
	u32 have = 0, room = *n;
	if (r) return r;
	for (; procs(d, have, &p, nm, sizeof nm); have++)
		if (out && have < room) out[have] = p;
	*n = have;
	return have > room || (have && !out) ? TOOSMALL : OK;
}
ret nvmlDeviceGetComputeRunningProcesses_v3(dev d, u32 *n, struct proc *o) { return list(d, __func__, n, o); }
ALIAS(nvmlDeviceGetComputeRunningProcesses_v2, nvmlDeviceGetComputeRunningProcesses_v3)
ret nvmlDeviceGetGraphicsRunningProcesses_v3(dev d, u32 *n, struct proc *o) { (void)o; *n = 0; return gate(d, __func__); }
ALIAS(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlDeviceGetGraphicsRunningProcesses_v3)
ret nvmlSystemGetProcessName(u32 pid, char *b, u32 n) {
	ret r = sysgate(__func__);
	struct proc p;
	char nm[256];
	for (u32 g = 0; !r && g < slots(); g++)
		for (u32 i = 0; procs(&gpus[g], i, &p, nm, sizeof nm); i++)
			if (p.pid == pid) return copy(nm, b, n);
	return r ? r : NOTFOUND;
}

/* ---- events: nvidia-smi wants a set to exist; none ever comes --------- */
ret nvmlEventSetCreate(void **set) { static int s; *set = &s; return sysgate(__func__); }
ret nvmlEventSetFree(void *set) { (void)set; return sysgate(__func__); }
ret nvmlDeviceRegisterEvents(dev d, u64 types, void *set) { (void)types, (void)set; return gate(d, __func__); }
ret nvmlEventSetWait_v2(void *set, void *data, u32 ms) { (void)set, (void)data; usleep(ms * 1000); ret r = sysgate(__func__); return r ? r : TIMEOUT; }

/* ---- field values: where nvidia-smi of 535 and later reads power ------ */
struct field { u32 id, scope; long long stamp, latency; u32 type; ret r; union { u32 ui; u64 ull; } v; };
ret nvmlDeviceGetFieldValues(dev d, int n, struct field *f) {
	ret r = gate(d, __func__);
	for (int i = 0; !r && i < n; i++) {
		static const struct { u32 id; const char *key; int type; } t[] = {
			{ 1, "ecc", 1 }, { 2, "ecc_pending", 1 }, { 83, "energy_mj", 3 }, { 91, "nvlinks", 1 }, { 185, "power_mw", 1 }, { 186, "power_mw", 1 }, { 187, "power_min_mw", 1 },
			{ 188, "power_max_mw", 1 }, { 189, "power_default_mw", 1 }, { 190, "power_limit_mw", 1 },
			{ 192, "power_limit_mw", 1 }, { 82, "temp_mem", 1 }, { 94, "pcie_replay", 1 },
			{ 142, "remap_corr", 1 }, { 143, "remap_uncorr", 1 }, { 144, "remap_pending", 1 }, { 145, "remap_failed", 1 },
			{ 230, "recovery", 1 }, /* 0 none, 1 reset, 2 reboot, 4 drain and reset, 7 system reboot */
		};
		f[i].r = NOTSUP;
		for (u32 k = 0; k < sizeof t / sizeof *t; k++)
			if (t[k].id == f[i].id && !(f[i].id >= 185 && f[i].scope)) { /* scope 1 is the module, 2 the memory */
				f[i].r = num(d, __func__, t[k].key, &f[i].v.ull);
				f[i].type = t[k].type;
			}
	}
	return r;
}
