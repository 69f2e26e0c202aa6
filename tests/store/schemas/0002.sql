PRAGMA application_id=1279345219;
BEGIN TRANSACTION;
CREATE TABLE energy_day (
	host TEXT NOT NULL, 
	doing TEXT NOT NULL, 
	at BIGINT NOT NULL, 
	seconds DOUBLE NOT NULL, 
	metered_s DOUBLE NOT NULL, 
	joules DOUBLE NOT NULL, 
	guessed DOUBLE NOT NULL, 
	PRIMARY KEY (host, doing, at)
)
 WITHOUT ROWID

;
INSERT INTO "energy_day" VALUES('box','busy',1799971200,60.0,60.0,18000.0,0.0);
CREATE TABLE energy_hour (
	host TEXT NOT NULL, 
	doing TEXT NOT NULL, 
	at BIGINT NOT NULL, 
	seconds DOUBLE NOT NULL, 
	metered_s DOUBLE NOT NULL, 
	joules DOUBLE NOT NULL, 
	guessed DOUBLE NOT NULL, 
	PRIMARY KEY (host, doing, at)
)
 WITHOUT ROWID

;
INSERT INTO "energy_hour" VALUES('box','busy',1800000000,60.0,60.0,18000.0,0.0);
CREATE TABLE energy_minute (
	host TEXT NOT NULL, 
	doing TEXT NOT NULL, 
	at BIGINT NOT NULL, 
	seconds DOUBLE NOT NULL, 
	metered_s DOUBLE NOT NULL, 
	joules DOUBLE NOT NULL, 
	guessed DOUBLE NOT NULL, 
	PRIMARY KEY (host, doing, at)
)
 WITHOUT ROWID

;
INSERT INTO "energy_minute" VALUES('box','busy',1800000000,60.0,60.0,18000.0,0.0);
CREATE TABLE happening (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at DOUBLE NOT NULL, 
	host TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	text TEXT NOT NULL
);
INSERT INTO "happening" VALUES(1,1800000000.0,'','leader','controller leads, in term 1');
INSERT INTO "happening" VALUES(2,1800000000.0,'box','mode','unknown -> verifying: because of seen');
INSERT INTO "happening" VALUES(3,1800000000.0,'box','mode','verifying -> ready: because of passed');
INSERT INTO "happening" VALUES(4,1800000000.0,'waking','mode','unknown -> waking: because of wished');
INSERT INTO "happening" VALUES(5,1800000000.0,'suspending','mode','unknown -> verifying: because of seen');
INSERT INTO "happening" VALUES(6,1800000000.0,'suspending','mode','verifying -> ready: because of passed');
INSERT INTO "happening" VALUES(7,1800000000.0,'suspending','mode','ready -> draining: because of went-quiet');
INSERT INTO "happening" VALUES(8,1800000000.0,'suspending','mode','draining -> suspending: it is idle');
INSERT INTO "happening" VALUES(9,1800000000.0,'box','hold','held by ann: training');
INSERT INTO "happening" VALUES(10,1800000000.0,'box','wish','ann wants it awake: a demo');
INSERT INTO "happening" VALUES(11,1800000000.0,'waking','wish','ann wants it asleep: a demo');
INSERT INTO "happening" VALUES(12,1800000000.0,'suspending','pause','paused: a new fan (ann)');
INSERT INTO "happening" VALUES(13,1800000000.0,'','pause','paused: moving house (ann)');
INSERT INTO "happening" VALUES(14,1800000000.0,'box','proof','three cycles passed');
INSERT INTO "happening" VALUES(15,1800000000.0,'waking','repair','quarantined: GPU-1');
CREATE TABLE hold (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	host TEXT NOT NULL, 
	why TEXT NOT NULL, 
	"by" TEXT NOT NULL, 
	until DOUBLE NOT NULL, 
	FOREIGN KEY(host) REFERENCES host (name)
);
INSERT INTO "hold" VALUES(1,'box','training','ann',1800000009.0);
CREATE TABLE host (
	name TEXT NOT NULL, 
	mode TEXT NOT NULL, 
	since DOUBLE NOT NULL, 
	because TEXT NOT NULL, 
	version BIGINT NOT NULL, 
	boot_id TEXT NOT NULL, 
	resumes BIGINT NOT NULL, 
	paused TEXT NOT NULL, 
	quarantined TEXT NOT NULL, 
	sleep_order JSON, 
	attempt JSON, 
	proof JSON, 
	repair JSON, 
	came_up_s JSON NOT NULL, 
	PRIMARY KEY (name), 
	CONSTRAINT host_order CHECK ((mode = 'suspending') = (sleep_order IS NOT NULL))
);
INSERT INTO "host" VALUES('box','ready',1800000000.0,'because of passed',5,'boot-1',3,'','',NULL,NULL,'{"fingerprint": {"kernel": "6.1.0-25", "driver": "580.65.06", "nic": "igc 00:11:22:33:44:55", "how": "suspend", "mem_sleep": "deep"}, "at": 1800000000.0, "cycles": 3, "dark_s": 4.5, "ready_s": 21.0}',NULL,'[[21.5, 1800000000.0]]');
INSERT INTO "host" VALUES('waking','waking',1800000000.0,'because of wished',3,'',-1,'','GPU-1',NULL,'{"began": 1800000000.0, "sent": 2, "last": 1800000005.0, "why": "somebody wants it", "asleep": false, "failed": ""}',NULL,'{"taken": ["reboot"], "broken": ["GPU-1 is missing"], "at": 1800000000.0}','[]');
INSERT INTO "host" VALUES('suspending','suspending',1800000000.0,'it is idle',5,'',-1,'a new fan (ann)','','{"nonce": "ffffffffffffffffffffffffffffffff", "how": "suspend", "at": 1800000000.0, "lasts_s": 120.0, "rtc_at": 1800003600.0}',NULL,NULL,NULL,'[]');
CREATE TABLE instance (
	name TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	beat BIGINT NOT NULL, 
	since DOUBLE NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "instance" VALUES('gateway','gateway',0,1800000000.0);
CREATE TABLE intent (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	host TEXT NOT NULL, 
	action TEXT NOT NULL, 
	because TEXT NOT NULL, 
	term BIGINT NOT NULL, 
	at DOUBLE NOT NULL, 
	ended DOUBLE, 
	outcome TEXT
);
INSERT INTO "intent" VALUES(1,'box','wake','ann wants it',1,1800000000.0,NULL,NULL);
CREATE TABLE labctl_schema (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT labctl_schema_pkc PRIMARY KEY (version_num)
);
INSERT INTO "labctl_schema" VALUES('0002');
CREATE TABLE leader (
	id INTEGER NOT NULL CONSTRAINT leader_one CHECK (id = 1), 
	holder TEXT, 
	term BIGINT NOT NULL, 
	beat BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "leader" VALUES(1,'controller',1,1);
CREATE TABLE lease (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	host TEXT NOT NULL, 
	instance TEXT NOT NULL, 
	since DOUBLE NOT NULL, 
	FOREIGN KEY(host) REFERENCES host (name), 
	FOREIGN KEY(instance) REFERENCES instance (name)
);
INSERT INTO "lease" VALUES(1,'box','gateway',1800000000.0);
CREATE TABLE rack (
	id INTEGER NOT NULL CONSTRAINT rack_one CHECK (id = 1), 
	paused TEXT NOT NULL, 
	labctl TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "rack" VALUES(1,'moving house (ann)','0.1.0');
CREATE TABLE token_day (
	host TEXT NOT NULL, 
	model TEXT NOT NULL, 
	at BIGINT NOT NULL, 
	prompt BIGINT NOT NULL, 
	answer BIGINT NOT NULL, 
	PRIMARY KEY (host, model, at)
)
 WITHOUT ROWID

;
INSERT INTO "token_day" VALUES('box','qwen',1799971200,900,1200);
CREATE TABLE token_hour (
	host TEXT NOT NULL, 
	model TEXT NOT NULL, 
	at BIGINT NOT NULL, 
	prompt BIGINT NOT NULL, 
	answer BIGINT NOT NULL, 
	PRIMARY KEY (host, model, at)
)
 WITHOUT ROWID

;
INSERT INTO "token_hour" VALUES('box','qwen',1800000000,900,1200);
CREATE TABLE wish (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	host TEXT NOT NULL, 
	"by" TEXT NOT NULL, 
	why TEXT NOT NULL, 
	at DOUBLE NOT NULL, 
	until DOUBLE NOT NULL, 
	sleep BOOLEAN NOT NULL, 
	force BOOLEAN NOT NULL, 
	FOREIGN KEY(host) REFERENCES host (name)
);
INSERT INTO "wish" VALUES(1,'box','ann','a demo',1800000000.0,1800000060.0,0,0);
INSERT INTO "wish" VALUES(2,'waking','ann','a demo',1800000000.0,1800000060.0,1,0);
CREATE INDEX ix_lease_instance ON lease (instance);
CREATE INDEX ix_lease_host ON lease (host);
CREATE INDEX ix_hold_host ON hold (host);
CREATE INDEX ix_wish_host ON wish (host);
CREATE INDEX ix_happening_host ON happening (host);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('happening',15);
INSERT INTO "sqlite_sequence" VALUES('lease',1);
INSERT INTO "sqlite_sequence" VALUES('hold',1);
INSERT INTO "sqlite_sequence" VALUES('wish',2);
INSERT INTO "sqlite_sequence" VALUES('intent',1);
COMMIT;
