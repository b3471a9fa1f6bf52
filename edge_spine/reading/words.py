"""Words of DICOM headers that name another modality, another region or the whole body; other words are ignored.

Sources: [CID 29] and [annex L], DICOM PS3.16, Acquisition Modality and Body Part Examined; [modality], DICOM PS3.3,
C.7.3.1.1.1; [GE], [Hologic], names of the scan modes of the Lunar and Horizon densitometers; [ISCD], the terms of the
International Society for Clinical Densitometry; [languages], translations of "whole body".
"""

import re

# [CID 29] and [modality], without those of projection images that densitometers or converters write: CR, DX, RG, OT,
# SC, BMD. Words that are in neither, such as DEXA, name no other modality.
_OTHER_MODALITIES = """
ANN AR ASMT AU BDUS BI CD CF CFM CP CS CT CTPROTOCOL DD DF DG DM DMS DOC DS EC ECG EEG EMG EOG EPS ES FA FID FS GM HC
HD IO IOL IVOCT IVUS KER KO LEN LP LS M3D MA MG MR MS NM OAM OCT OP OPM OPR OPT OPTBSV OPTENF OPV OSS PA PLAN POS PR
PT PX REG RESP RESPIRATORY RF RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF ST
STAIN TEXTUREMAP TG US VA VF XA XC
"""
OTHER_MODALITIES = frozenset(_OTHER_MODALITIES.split())

# [annex L], each the name of a part of the body
_OTHER_PARTS = """
ABDOMEN ABDOMENPELVIS ANKLE ANUS ARM BACK BLADDER BRAIN BREAST BUTTOCK CALCANEUS CALF CAROTID CEREBELLUM CERVIX CHEEK
CHEST CHESTABDOMEN CHESTABDPELVIS CLAVICLE COCCYX COLON CSPINE CTSPINE DIGIT EAR ELBOW EXTREMITY EYE FACE FEMUR FINGER
FOOT FOREARM FOREFOOT HAND HEAD HEADNECK HEART HINDFOOT HIP HUMERUS ILIUM JAW KIDNEY KNEE LEG LIVER LSPINE LSSPINE
LUNG MANDIBLE MAXILLA METACARPUS METATARSUS NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE ORBIT PATELLA PELVIS
PELVISLOWEXTREMT RADIUS RADIUSULNA RIB SACRUM SCAPULA SHOULDER SIJOINT SINUS SKULL SPINE SSPINE STERNUM THIGH THORAX
THUMB TIBIA TIBIAFIBULA TLSPINE TMJ TOE TSPINE ULNA WRIST ZYGOMA
"""
OTHER_PARTS = frozenset(_OTHER_PARTS.split())

# [GE] AP Spine, LVA, DVA, Dual Femur, Forearm, Hand, Orthopedic; [Hologic] Lumbar Spine, Hip, IVA, Forearm; [ISCD] VFA
OTHER_REGION = re.compile(
    r"\b((?:l|t|c)?spine|spinal|lumbar|thoracic|lva|iva|vfa|dva|vertebral|lateral|femur|femora|femoral|hips?|"
    r"pelvis|forearm|radius|wrist|hand|fingers?|elbow|shoulder|humerus|ortho|knee|ankle|foot|heel|calcaneus|"
    r"tibia|legs?|chest|thorax|abdomen|skull|head|neck)\b",
    re.IGNORECASE,
)

# [GE] Total Body; [Hologic] Whole Body, Auto Whole Body, Infant Whole Body, Body Composition; [ISCD] WB, TBLH;
# [languages] German, Dutch,
# Swedish, Danish, French, Spanish, Portuguese, Italian, Polish, Russian, Japanese and Chinese, Korean
WHOLE_BODY = re.compile(
    r"\b(?:whole|total|full)[\s-]*body\b|^body$|\bbody[\s-]*comp(?:osition)?\b|\bwb\b|\btblh\b|\bskeleton\b|"
    r"\bhead[\s-]+to[\s-]+(?:toe|foot|feet)\b|"
    r"\bganzk(?:ö|oe|o)rper|\b(?:hele|gehele|totale) lichaam\b|\bhelkropp?(?:en)?\b|\bcorps entier\b|"
    r"\bcuerpo (?:entero|completo|total)\b|\bcorpo (?:inteiro|total|intero)\b|\bca[łl]e(?:go)? cia[łl][oa]\b|"
    r"\bвс(?:ё|е|его) тел[оа]\b|全身|전신",
    re.IGNORECASE,
)

# A part that is left out, or a position on the table, is no other region: "less head", "head excluded", "head first".
NO_REGION = re.compile(
    r"\b(?:less|without|w/o|excluding|excl\.?|minus|except|no)\s+(?:the\s+)?\w+|"
    r"\b\w+\s+(?:is\s+)?(?:excluded|excl\b|removed)|\b(?:head|feet|foot)[\s-]*first\b",
    re.IGNORECASE,
)
