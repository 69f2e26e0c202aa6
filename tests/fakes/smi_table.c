/* What the real nvidia-smi wants of its library besides NVML's public calls: a table of internal ones.
 *
 * Compiled together with fakenvml.c, for tests only. Which slot is what was found out by others by watching
 * nvidia-smi at work: 81 looks a card up by its number, 213 to 215 list processes (here: none), 230 tells the
 * host's PCIe generation. The rest says NOT_SUPPORTED, which nvidia-smi shows as N/A.
 */
typedef ret (*slot)(void *, void *, void *, void *);

static ret by_index(void *index, void *card, void *flags, void *rest) {
	(void)flags, (void)rest;
	return nvmlDeviceGetHandleByIndex_v2((u32)(unsigned long)index, card);
}
static ret no_processes(void *card, void *count, void *array, void *rest) {
	(void)card, (void)array, (void)rest;
	*(u32 *)count = 0;
	return OK;
}
static ret host_generation(void *card, void *generation, void *array, void *rest) {
	(void)array, (void)rest;
	return nvmlDeviceGetMaxPcieLinkGeneration(card, generation);
}
static ret unknown(void *a, void *b, void *c, void *d) {
	(void)a, (void)b, (void)c, (void)d;
	return NOTSUP;
}
ret nvmlInternalGetExportTable(const void **table, const void *id) {
	static void *slots[512];
	(void)id;
	slots[0] = (void *)sizeof slots;
	for (unsigned i = 1; i < sizeof slots / sizeof *slots; i++) slots[i] = (void *)(slot)unknown;
	slots[81] = (void *)(slot)by_index;
	slots[213] = slots[214] = slots[215] = (void *)(slot)no_processes;
	slots[230] = (void *)(slot)host_generation;
	*table = slots;
	return OK;
}
