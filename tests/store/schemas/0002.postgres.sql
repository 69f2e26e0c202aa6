CREATE TABLE public.energy_day (
    host text NOT NULL,
    doing text NOT NULL,
    at bigint NOT NULL,
    seconds double precision NOT NULL,
    metered_s double precision NOT NULL,
    joules double precision NOT NULL,
    guessed double precision NOT NULL
);
CREATE TABLE public.energy_hour (
    host text NOT NULL,
    doing text NOT NULL,
    at bigint NOT NULL,
    seconds double precision NOT NULL,
    metered_s double precision NOT NULL,
    joules double precision NOT NULL,
    guessed double precision NOT NULL
);
CREATE TABLE public.energy_minute (
    host text NOT NULL,
    doing text NOT NULL,
    at bigint NOT NULL,
    seconds double precision NOT NULL,
    metered_s double precision NOT NULL,
    joules double precision NOT NULL,
    guessed double precision NOT NULL
);
CREATE TABLE public.happening (
    id bigint NOT NULL,
    at double precision NOT NULL,
    host text NOT NULL,
    kind text NOT NULL,
    text text NOT NULL
);
CREATE SEQUENCE public.happening_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.happening_id_seq OWNED BY public.happening.id;
CREATE TABLE public.hold (
    id bigint NOT NULL,
    host text NOT NULL,
    why text NOT NULL,
    by text NOT NULL,
    until double precision NOT NULL
);
CREATE SEQUENCE public.hold_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.hold_id_seq OWNED BY public.hold.id;
CREATE TABLE public.host (
    name text NOT NULL,
    mode text NOT NULL,
    since double precision NOT NULL,
    because text NOT NULL,
    version bigint NOT NULL,
    boot_id text NOT NULL,
    resumes bigint NOT NULL,
    paused text NOT NULL,
    quarantined text NOT NULL,
    sleep_order json,
    attempt json,
    proof json,
    repair json,
    came_up_s json NOT NULL,
    CONSTRAINT host_order CHECK (((mode = 'suspending'::text) = (sleep_order IS NOT NULL)))
);
CREATE TABLE public.instance (
    name text NOT NULL,
    kind text NOT NULL,
    beat bigint NOT NULL,
    since double precision NOT NULL
);
CREATE TABLE public.intent (
    id bigint NOT NULL,
    host text NOT NULL,
    action text NOT NULL,
    because text NOT NULL,
    term bigint NOT NULL,
    at double precision NOT NULL,
    ended double precision,
    outcome text
);
CREATE SEQUENCE public.intent_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.intent_id_seq OWNED BY public.intent.id;
CREATE TABLE public.labctl_schema (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.leader (
    id integer NOT NULL,
    holder text,
    term bigint NOT NULL,
    beat bigint NOT NULL,
    CONSTRAINT leader_one CHECK ((id = 1))
);
CREATE SEQUENCE public.leader_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.leader_id_seq OWNED BY public.leader.id;
CREATE TABLE public.lease (
    id bigint NOT NULL,
    host text NOT NULL,
    instance text NOT NULL,
    since double precision NOT NULL
);
CREATE SEQUENCE public.lease_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.lease_id_seq OWNED BY public.lease.id;
CREATE TABLE public.rack (
    id integer NOT NULL,
    paused text NOT NULL,
    labctl text NOT NULL,
    CONSTRAINT rack_one CHECK ((id = 1))
);
CREATE SEQUENCE public.rack_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.rack_id_seq OWNED BY public.rack.id;
CREATE TABLE public.token_day (
    host text NOT NULL,
    model text NOT NULL,
    at bigint NOT NULL,
    prompt bigint NOT NULL,
    answer bigint NOT NULL
);
CREATE TABLE public.token_hour (
    host text NOT NULL,
    model text NOT NULL,
    at bigint NOT NULL,
    prompt bigint NOT NULL,
    answer bigint NOT NULL
);
CREATE TABLE public.wish (
    id bigint NOT NULL,
    host text NOT NULL,
    by text NOT NULL,
    why text NOT NULL,
    at double precision NOT NULL,
    until double precision NOT NULL,
    sleep boolean NOT NULL,
    force boolean NOT NULL
);
CREATE SEQUENCE public.wish_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.wish_id_seq OWNED BY public.wish.id;
ALTER TABLE ONLY public.happening ALTER COLUMN id SET DEFAULT nextval('public.happening_id_seq'::regclass);
ALTER TABLE ONLY public.hold ALTER COLUMN id SET DEFAULT nextval('public.hold_id_seq'::regclass);
ALTER TABLE ONLY public.intent ALTER COLUMN id SET DEFAULT nextval('public.intent_id_seq'::regclass);
ALTER TABLE ONLY public.leader ALTER COLUMN id SET DEFAULT nextval('public.leader_id_seq'::regclass);
ALTER TABLE ONLY public.lease ALTER COLUMN id SET DEFAULT nextval('public.lease_id_seq'::regclass);
ALTER TABLE ONLY public.rack ALTER COLUMN id SET DEFAULT nextval('public.rack_id_seq'::regclass);
ALTER TABLE ONLY public.wish ALTER COLUMN id SET DEFAULT nextval('public.wish_id_seq'::regclass);
INSERT INTO public.energy_day VALUES ('box', 'busy', 1799971200, 60, 60, 18000, 0);
INSERT INTO public.energy_hour VALUES ('box', 'busy', 1800000000, 60, 60, 18000, 0);
INSERT INTO public.energy_minute VALUES ('box', 'busy', 1800000000, 60, 60, 18000, 0);
INSERT INTO public.happening VALUES (1, 1800000000, '', 'leader', 'controller leads, in term 1');
INSERT INTO public.happening VALUES (2, 1800000000, 'box', 'mode', 'unknown -> verifying: because of seen');
INSERT INTO public.happening VALUES (3, 1800000000, 'box', 'mode', 'verifying -> ready: because of passed');
INSERT INTO public.happening VALUES (4, 1800000000, 'waking', 'mode', 'unknown -> waking: because of wished');
INSERT INTO public.happening VALUES (5, 1800000000, 'suspending', 'mode', 'unknown -> verifying: because of seen');
INSERT INTO public.happening VALUES (6, 1800000000, 'suspending', 'mode', 'verifying -> ready: because of passed');
INSERT INTO public.happening VALUES (7, 1800000000, 'suspending', 'mode', 'ready -> draining: because of went-quiet');
INSERT INTO public.happening VALUES (8, 1800000000, 'suspending', 'mode', 'draining -> suspending: it is idle');
INSERT INTO public.happening VALUES (9, 1800000000, 'box', 'hold', 'held by ann: training');
INSERT INTO public.happening VALUES (10, 1800000000, 'box', 'wish', 'ann wants it awake: a demo');
INSERT INTO public.happening VALUES (11, 1800000000, 'waking', 'wish', 'ann wants it asleep: a demo');
INSERT INTO public.happening VALUES (12, 1800000000, 'suspending', 'pause', 'paused: a new fan (ann)');
INSERT INTO public.happening VALUES (13, 1800000000, '', 'pause', 'paused: moving house (ann)');
INSERT INTO public.happening VALUES (14, 1800000000, 'box', 'proof', 'three cycles passed');
INSERT INTO public.happening VALUES (15, 1800000000, 'waking', 'repair', 'quarantined: GPU-1');
INSERT INTO public.hold VALUES (1, 'box', 'training', 'ann', 1800000009);
INSERT INTO public.host VALUES ('suspending', 'suspending', 1800000000, 'it is idle', 5, '', -1, 'a new fan (ann)', '', '{"nonce": "ffffffffffffffffffffffffffffffff", "how": "suspend", "at": 1800000000.0, "lasts_s": 120.0, "rtc_at": 1800003600.0}', NULL, NULL, NULL, '[]');
INSERT INTO public.host VALUES ('box', 'ready', 1800000000, 'because of passed', 5, 'boot-1', 3, '', '', NULL, NULL, '{"fingerprint": {"kernel": "6.1.0-25", "driver": "580.65.06", "nic": "igc 00:11:22:33:44:55", "how": "suspend", "mem_sleep": "deep"}, "at": 1800000000.0, "cycles": 3, "dark_s": 4.5, "ready_s": 21.0}', NULL, '[[21.5, 1800000000.0]]');
INSERT INTO public.host VALUES ('waking', 'waking', 1800000000, 'because of wished', 3, '', -1, '', 'GPU-1', NULL, '{"began": 1800000000.0, "sent": 2, "last": 1800000005.0, "why": "somebody wants it", "asleep": false, "failed": ""}', NULL, '{"taken": ["reboot"], "broken": ["GPU-1 is missing"], "at": 1800000000.0}', '[]');
INSERT INTO public.instance VALUES ('gateway', 'gateway', 0, 1800000000);
INSERT INTO public.intent VALUES (1, 'box', 'wake', 'ann wants it', 1, 1800000000, NULL, NULL);
INSERT INTO public.labctl_schema VALUES ('0002');
INSERT INTO public.leader VALUES (1, 'controller', 1, 1);
INSERT INTO public.lease VALUES (1, 'box', 'gateway', 1800000000);
INSERT INTO public.rack VALUES (1, 'moving house (ann)', '0.1.0');
INSERT INTO public.token_day VALUES ('box', 'qwen', 1799971200, 900, 1200);
INSERT INTO public.token_hour VALUES ('box', 'qwen', 1800000000, 900, 1200);
INSERT INTO public.wish VALUES (1, 'box', 'ann', 'a demo', 1800000000, 1800000060, false, false);
INSERT INTO public.wish VALUES (2, 'waking', 'ann', 'a demo', 1800000000, 1800000060, true, false);
SELECT pg_catalog.setval('public.happening_id_seq', 15, true);
SELECT pg_catalog.setval('public.hold_id_seq', 1, true);
SELECT pg_catalog.setval('public.intent_id_seq', 1, true);
SELECT pg_catalog.setval('public.leader_id_seq', 1, false);
SELECT pg_catalog.setval('public.lease_id_seq', 1, true);
SELECT pg_catalog.setval('public.rack_id_seq', 1, false);
SELECT pg_catalog.setval('public.wish_id_seq', 2, true);
ALTER TABLE ONLY public.energy_day
    ADD CONSTRAINT energy_day_pkey PRIMARY KEY (host, doing, at);
ALTER TABLE ONLY public.energy_hour
    ADD CONSTRAINT energy_hour_pkey PRIMARY KEY (host, doing, at);
ALTER TABLE ONLY public.energy_minute
    ADD CONSTRAINT energy_minute_pkey PRIMARY KEY (host, doing, at);
ALTER TABLE ONLY public.happening
    ADD CONSTRAINT happening_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.hold
    ADD CONSTRAINT hold_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.host
    ADD CONSTRAINT host_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.instance
    ADD CONSTRAINT instance_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.intent
    ADD CONSTRAINT intent_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.labctl_schema
    ADD CONSTRAINT labctl_schema_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.leader
    ADD CONSTRAINT leader_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.rack
    ADD CONSTRAINT rack_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.token_day
    ADD CONSTRAINT token_day_pkey PRIMARY KEY (host, model, at);
ALTER TABLE ONLY public.token_hour
    ADD CONSTRAINT token_hour_pkey PRIMARY KEY (host, model, at);
ALTER TABLE ONLY public.wish
    ADD CONSTRAINT wish_pkey PRIMARY KEY (id);
CREATE INDEX ix_happening_host ON public.happening USING btree (host);
CREATE INDEX ix_hold_host ON public.hold USING btree (host);
CREATE INDEX ix_lease_host ON public.lease USING btree (host);
CREATE INDEX ix_lease_instance ON public.lease USING btree (instance);
CREATE INDEX ix_wish_host ON public.wish USING btree (host);
ALTER TABLE ONLY public.hold
    ADD CONSTRAINT hold_host_fkey FOREIGN KEY (host) REFERENCES public.host(name);
ALTER TABLE ONLY public.lease
    ADD CONSTRAINT lease_host_fkey FOREIGN KEY (host) REFERENCES public.host(name);
ALTER TABLE ONLY public.lease
    ADD CONSTRAINT lease_instance_fkey FOREIGN KEY (instance) REFERENCES public.instance(name);
ALTER TABLE ONLY public.wish
    ADD CONSTRAINT wish_host_fkey FOREIGN KEY (host) REFERENCES public.host(name);
